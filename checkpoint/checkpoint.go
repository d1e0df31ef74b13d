// Package checkpoint opens, lists, reads and writes model files.
//
// [Open] reads headers and nothing else: a [Model] says which tensors there are, and reads any part of their data when
// asked. [Create] takes the tensors first and their data afterwards, in any order and from any number of goroutines; the
// model appears under its name, complete, when [Writer.Commit] is called, or not at all.
//
// # Formats
//
// The format of models is safetensors: one file, or a directory of shards, each a file of that format, with an index,
// model.safetensors.index.json, that says which tensor is in which shard. [WithShards] and [WithMaxShardSize] write such
// directories; [CopySideFiles] copies the files that a model directory has besides.
//
// Files of NumPy are read and written too: .npy, versions 1 to 3, whose one tensor is called "array", and .npz, stored or
// deflated, where the tensor in w.npy is called "w"; what is written is version 1, and stored. Booleans, integers of 8 to
// 64 bits, floats of 16, 32 and 64 bits and complex numbers of two floats of 32 bits are read, in either order of bytes,
// and from arrays in the order of C or of Fortran. An array in Fortran's order is put in order while it is read, which
// takes several times as long and a buffer of the size of the array, at most 16 MiB for each open file, and less if many
// are open: 32 MiB for all of them, or 2 MiB for each. NumPy stores bfloat16 without its name; [WithVoid2As] reads it.
//
// The checksum of an array in a .npz file is compared when its first byte is asked for, and no byte of one that is damaged
// is returned: all of it is read then, and a deflated array goes to a temporary file, in the directory that [os.TempDir]
// names, so that no more than a buffer of it is in memory.
//
// # Bytes
//
// The data of a tensor is row-major and little-endian in every []byte of this package. On a big-endian machine it is the
// caller who converts, as encoding/binary does.
//
// # What is checked
//
// A file is read only if it obeys every rule of the format. What the reader accepts is what the reference
// implementation accepts, with these exceptions: names of tensors and keys of the metadata that come twice are refused,
// which the format forbids and that implementation does not see; so are tensors written as arrays instead of objects,
// and dimensions beyond the int64 range.
//
// An index and its shards have to say the same: each tensor is in one shard, and that is where the index says. Names of
// shards are plain names of files in the directory of the index. The total_size of an index is often wrong and only
// looked at by [Violations], which returns all that is wrong with a model where Open returns the first error.
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

	// ErrInflateLimit reports deflated arrays that are too large inflated; see [WithInflateLimit].
	ErrInflateLimit = errors.New("deflated arrays over the limit")

	// ErrNoTensor reports a name that no tensor of the model has.
	ErrNoTensor = errors.New("no tensor")

	// ErrUntyped reports an array in a NumPy file whose elements are two bytes without a type; see [WithVoid2As].
	ErrUntyped = errors.New("elements of two bytes without a type")

	// ErrNumPyDType reports a dtype to write that files of NumPy do not have: BF16, F8_E4M3 and the other formats of
	// machine learning.
	ErrNumPyDType = errors.New("no such dtype in NumPy files")

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
