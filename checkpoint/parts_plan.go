package checkpoint

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// The unfinished output of OUT, which several processes write, is the directory .OUT.parts beside it: the plan, a
// record for every part that is complete, and a directory of the files under their final names.
const (
	partsSuffix  = ".parts"
	partsPlan    = "plan.json"
	partsData    = "data"
	partsPlacing = "placing" // there from when the files begin to be put in their places
	partsProbe   = "probe"
	partsFormat  = "modelavg parts 1"
)

// maxParts is more than there are machines, and keeps numbers of parts within file names.
const maxParts = 1_000_000

// maxDifferences is how many differences between two plans an error names.
const maxDifferences = 5

// Errors about outputs that are written in parts.
var (
	// ErrNoParts reports that there is no unfinished output of a path.
	ErrNoParts = errors.New("there is nothing to finish")

	// ErrMissingParts reports that parts of an output are not complete.
	ErrMissingParts = errors.New("missing")

	// ErrOtherPlan reports a part of another plan than that of the unfinished output.
	ErrOtherPlan = errors.New("the unfinished output is of another plan")

	// ErrDamaged reports bytes in an unfinished output that are not what the part has written.
	ErrDamaged = errors.New("not what was written")
)

// A Part says which of the parts of an output is meant: part Number of Of, counted from 1.
type Part struct {
	Number, Of int
}

// String returns the part as in "3/8".
func (p Part) String() string { return fmt.Sprintf("%d/%d", p.Number, p.Of) }

// check returns an error unless there is such a part.
func (p Part) check() error {
	if p.Of < 1 || p.Of > maxParts {
		return fmt.Errorf("part %v: want 1 to %d parts", p, maxParts)
	}
	if p.Number < 1 || p.Number > p.Of {
		return fmt.Errorf("part %v: want a number from 1 to %d", p, p.Of)
	}
	return nil
}

// A Fact is something that all processes which write parts of an output have to agree about, its source or a weight for
// example. The name says in errors what differs.
type Fact struct {
	Name  string `json:"name"`
	Value string `json:"value"`

	// Differs is what errors say, in place of the name and the two values, if the unfinished output has another value.
	// It is not compared.
	Differs string `json:"-"`

	// Summary says that the fact follows from others as a rule: errors name it only if no other one differs. It is not
	// compared.
	Summary bool `json:"-"`
}

// A TensorRange is Length bytes of the data of a tensor, from byte Offset on.
type TensorRange struct {
	Tensor string
	Offset int64
	Length int64
}

// A partFile is a file of the output as the plan has it.
type partFile struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	Data   int64  `json:"data"`   // the offset of the data, before which is the header
	Header string `json:"header"` // the SHA-256 of the header, or of the whole index
}

// A sharedPlan is what plan.json holds. Its digest stands for all of it.
type sharedPlan struct {
	Format    string     `json:"format"`
	Digest    string     `json:"digest"` // of all else
	Parts     int        `json:"parts"`
	Directory bool       `json:"directory"`
	Index     bool       `json:"index"` // the last file is the index
	Files     []partFile `json:"files"`
	Facts     []Fact     `json:"facts"` // of the caller
}

// digest returns what the digest has to be.
func (p *sharedPlan) digest() string {
	q := *p
	q.Digest = ""
	text, err := json.Marshal(q)
	if err != nil {
		panic(err) // strings and numbers
	}
	return hexSHA256(text)
}

func hexSHA256(p []byte) string {
	sum := sha256.Sum256(p)
	return hex.EncodeToString(sum[:])
}

// all returns all that two plans have to agree about, as facts.
func (p *sharedPlan) all() []Fact {
	kind := "one file"
	if p.Directory {
		kind = "a directory"
	}
	facts := append([]Fact{
		{Name: "format", Value: p.Format},
		{Name: "number of parts", Value: fmt.Sprint(p.Parts)},
		{Name: "output", Value: kind},
	}, p.Facts...)
	for _, f := range p.Files {
		facts = append(facts, Fact{
			Name:  "file " + quote(f.Name),
			Value: fmt.Sprintf("%d bytes, header %.16s", f.Size, f.Header),
		})
	}
	return facts
}

// differences returns what is not as in the plan there is, for people.
func (p *sharedPlan) differences(there *sharedPlan) string {
	is := make(map[string]string)
	for _, f := range there.all() {
		is[f.Name] = f.Value
	}
	var list, summaries []string
	for _, f := range p.all() {
		got, ok := is[f.Name]
		delete(is, f.Name)
		switch {
		case !ok:
			list = append(list, fmt.Sprintf("it has no %s, want %s", f.Name, f.Value))
		case got == f.Value:
		case f.Differs != "":
			list = append(list, f.Differs)
		case f.Summary:
			summaries = append(summaries, fmt.Sprintf("its %s is %s, want %s", f.Name, got, f.Value))
		default:
			list = append(list, fmt.Sprintf("its %s is %s, want %s", f.Name, got, f.Value))
		}
	}
	for _, f := range there.all() {
		if value, ok := is[f.Name]; ok {
			list = append(list, fmt.Sprintf("it has %s, %s", f.Name, value))
		}
	}
	if len(list) == 0 {
		list = summaries
	}
	if len(list) == 0 {
		return "their facts are in another order"
	}
	if n := len(list) - maxDifferences; n > 0 {
		list = append(list[:maxDifferences], fmt.Sprintf("and %d more", n))
	}
	return strings.Join(list, "; ")
}

// check returns an error unless the plan, which was read, is sound.
func (p *sharedPlan) check(base string) error {
	switch {
	case p.Format != partsFormat:
		return fmt.Errorf("its format is %q, want %q", p.Format, partsFormat)
	case p.Digest != p.digest():
		return errors.New("its digest is not that of its contents")
	case p.Parts < 1 || p.Parts > maxParts || len(p.Files) == 0 || !p.Directory && len(p.Files) != 1:
		return fmt.Errorf("it has %d parts and %d files", p.Parts, len(p.Files))
	}
	for _, f := range p.Files {
		if f.Size < 1 || f.Data < 1 || f.Data > f.Size { // each has a header, or is an index
			return fmt.Errorf("file %s: %d bytes with data from %d on", quote(f.Name), f.Size, f.Data)
		}
		if !p.Directory && f.Name != base {
			return fmt.Errorf("file %s: want %s", quote(f.Name), quote(base))
		}
		if p.Directory {
			if err := checkFileName(f.Name); err != nil {
				return fmt.Errorf("file %s: the name %w", quote(f.Name), err)
			}
		}
	}
	return nil
}

// A partRecord is what a part leaves when it is complete.
type partRecord struct {
	Number  int             `json:"part"`
	Of      int             `json:"of"`
	Digest  string          `json:"digest"` // of the plan
	Spans   []recordedSpan  `json:"spans"`
	Details json.RawMessage `json:"details,omitempty"` // of the caller
}

// A recordedSpan is bytes of a file and their checksum.
type recordedSpan struct {
	File  int    `json:"file"` // index in the plan
	Begin int64  `json:"begin"`
	End   int64  `json:"end"`
	Sum   uint32 `json:"crc32c"`
}

// recordName returns the name of the record of a part.
func recordName(p Part) string { return fmt.Sprintf("part-%d-of-%d.json", p.Number, p.Of) }

// recordPart returns the part whose record has the name.
func recordPart(name string) (Part, bool) {
	var p Part
	_, err := fmt.Sscanf(name, "part-%d-of-%d.json", &p.Number, &p.Of)
	return p, err == nil && p.check() == nil && recordName(p) == name
}

// partsDirectory returns the path that the output really has, and that of its unfinished output. A link to a directory
// is followed: the files have to be in the same file system as that.
func partsDirectory(path string) (target, dir string) {
	target = filepath.Clean(path)
	if info, err := os.Stat(target); err == nil && info.IsDir() {
		if real, err := filepath.EvalSymlinks(target); err == nil {
			target = real
		}
	}
	return target, filepath.Join(filepath.Dir(target), "."+filepath.Base(target)+partsSuffix)
}

// readPlan reads the plan of the unfinished output in dir. The error wraps fs.ErrNotExist if there is none.
func readPlan(dir, target string) (*sharedPlan, error) {
	path := filepath.Join(dir, partsPlan)
	p := new(sharedPlan)
	if err := readJSON(path, p); err != nil {
		return nil, err
	}
	if err := p.check(filepath.Base(target)); err != nil {
		return nil, fmt.Errorf("%s: the file is damaged: %w", path, err)
	}
	return p, nil
}

// readJSON reads a file that writeJSON has written.
func readJSON(path string, x any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(x); err != nil {
		return fmt.Errorf("%s: the file is damaged: %w", path, err)
	}
	return nil
}

// writeJSON writes a file that appears whole or not at all. If it has to be new and is not, the error wraps
// fs.ErrExist.
func writeJSON(path string, x any, isNew, sync bool) error {
	text, err := json.MarshalIndent(x, "", " ")
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	a, err := createAtomic(path, path, 0)
	if err != nil {
		return err
	}
	if _, err := a.file.Write(append(text, '\n')); err != nil {
		return errors.Join(fmt.Errorf("%s: %w", path, err), a.discard())
	}
	if !isNew {
		return a.commit(sync)
	}
	if sync {
		if err := a.flush(); err != nil {
			return errors.Join(err, a.discard())
		}
	}
	return a.commitNew()
}

// agree makes the plan that of the unfinished output, or returns an error if that has another one.
func (p *sharedPlan) agree(dir, target string, sync bool) error {
	if err := os.Mkdir(dir, 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	for range 2 {
		there, err := readPlan(dir, target)
		switch {
		case err == nil && there.Digest == p.Digest:
			return nil
		case err == nil:
			return fmt.Errorf("%s: %w: %s", dir, ErrOtherPlan, p.differences(there))
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
		if err := checkEmpty(dir); err != nil {
			// Another process has put its plan there meanwhile, or there are the remains of a removed output.
			if _, again := readPlan(dir, target); errors.Is(again, fs.ErrNotExist) {
				return err
			}
			continue
		}
		// It is read in any case: where there are no links, another one may have come in between.
		if err := writeJSON(filepath.Join(dir, partsPlan), p, true, sync); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		there, err = readPlan(dir, target)
		if err != nil {
			return err
		}
		if there.Digest != p.Digest {
			return fmt.Errorf("%s: %w: %s", dir, ErrOtherPlan, p.differences(there))
		}
		return nil
	}
	return fmt.Errorf("%s: comes and goes while the part begins", dir)
}

// checkEmpty returns an error if there is something in dir except hidden files.
func checkEmpty(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") {
			return fmt.Errorf("%s: has no plan and is not empty, as an output that was not wholly removed: discard it",
				dir)
		}
	}
	return nil
}
