// Package checkpoint opens, lists, reads and writes model files.
//
// [Open] reads the header of a file and nothing else: a [Model] says which tensors there are, and reads any part of
// their data when asked. [Create] takes the tensors first and their data afterwards, in any order and from any number
// of goroutines; the file appears under its name, complete, when [Writer.Commit] is called, or not at all.
//
// The format is safetensors, one file for each model.
//
// # Bytes
//
// The data of a tensor is row-major and little-endian, in the file and in every []byte of this package. On a big-endian
// machine it is the caller who converts, as encoding/binary does.
//
// # What is checked
//
// A file is read only if it obeys every rule of the format. What the reader accepts is what the reference
// implementation accepts, with these exceptions: names of tensors and keys of the metadata that come twice are refused,
// which the format forbids and that implementation does not see; so are tensors written as arrays instead of objects,
// and dimensions beyond the int64 range.
//
// Headers are treated as hostile: no memory is taken on the word of a length or an offset before it was compared with
// the size of the file, and errors say which file, which tensor and which field, what was found and what was wanted.
package checkpoint

import (
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// Errors that callers may want to tell apart. They come wrapped in text that names the file, and the tensor if it is
// about one.
var (
	// ErrHeaderLimit reports a header that is longer than the limit: that of [WithHeaderLimit] for reading, that of
	// the format for writing.
	ErrHeaderLimit = errors.New("header over the limit")

	// ErrNoTensor reports a name that no tensor of the model has.
	ErrNoTensor = errors.New("no tensor")

	// ErrChanged reports a file that was changed while it was open.
	ErrChanged = errors.New("file changed while it was open")

	// ErrIncomplete reports a [Writer.Commit] before every byte of every tensor was written.
	ErrIncomplete = errors.New("not all bytes are written")
)

// A FormatError reports that a file breaks a rule of its format.
type FormatError struct {
	Path   string // as given to [Open]
	Tensor string // the tensor that it is about, if any
	Err    error  // what was found, and what was wanted

	aboutTensor bool // the empty name is a legal one
}

// Error returns path, tensor, and what is wrong with it.
func (e *FormatError) Error() string {
	if e.aboutTensor {
		return fmt.Sprintf("%s: tensor %s: %v", e.Path, quote(e.Tensor), e.Err)
	}
	return fmt.Sprintf("%s: %v", e.Path, e.Err)
}

// Unwrap returns e.Err.
func (e *FormatError) Unwrap() error { return e.Err }

// maxQuoted is how much of a name is shown in an error: a hostile name may be as long as the header.
const maxQuoted = 200

// quote returns the name in quotes, and only its beginning if it is long.
func quote[T string | []byte](name T) string {
	if len(name) <= maxQuoted {
		return strconv.Quote(string(name))
	}
	n := maxQuoted
	for n > maxQuoted-utf8.UTFMax && !utf8.RuneStart(name[n]) {
		n--
	}
	return strconv.Quote(string(name[:n])) + "…"
}
