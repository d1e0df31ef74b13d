package merge

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/modelavg/modelavg/checkpoint"
)

// A Part is the share of one process in a result that several write: part Number of Of, counted from 1.
type Part struct {
	Number int
	Of     int

	// Ranges are what the part writes. Nil means its share of all bytes, see [checkpoint.PartWriter.Ranges]; a part
	// that has nothing to write has an empty list. The ranges of all parts together have to cover the result.
	Ranges []Range

	// SideFiles is the directory of a model whose files that are not weights are copied by [Finish], as
	// [checkpoint.CopySideFiles] does it. The path is that on the machine of Finish. Empty means none.
	SideFiles string
}

// RunPart does one part of what [Plan.Run] does: several processes, on one machine or on many, which each make the same
// plan and run another part of it, write the result together, and [Finish] puts it at path. It has the same bytes as
// that of one process. The order of the parts and how many run at a time do not matter; a part may fail, be killed or
// stopped, and be run again, also while another process runs it. Until Finish, path is as it was, so that it may be one
// of the inputs; the unfinished output is beside it, see [checkpoint.CreatePart].
//
// The models must not change until all parts are done. A part whose plan is not that of the others is an error that
// wraps [checkpoint.ErrOtherPlan] and names what differs: the number of parts, weights, policies, what is written, and
// the models, going by their tensors and by a sample of their data; their paths may differ.
//
// The report is that of the part, progress is called as in Run with the bytes that the part reads, and errors are those
// of Run; after one, the part has to be run again.
func (p *Plan) RunPart(ctx context.Context, path string, part Part, progress func(done, total int64)) (*Report, error) {
	if p == nil || len(p.models) == 0 {
		return nil, errNoPlan
	}
	began := time.Now()
	facts, err := p.facts()
	if err != nil {
		return nil, err
	}
	w, err := checkpoint.CreatePart(path, checkpoint.Part{Number: part.Number, Of: part.Of}, p.tensors(), p.Metadata,
		facts, p.create...)
	if err != nil {
		return nil, err
	}
	defer w.Close() // after Commit this does nothing
	ranges := part.Ranges
	if ranges == nil {
		for _, r := range w.Ranges() {
			ranges = append(ranges, Range(r))
		}
	}
	report, r, err := p.runRanges(ctx, ranges, w, progress)
	if err != nil {
		return nil, err
	}
	details, err := json.Marshal(p.details(r, part, began))
	if err != nil {
		return nil, err
	}
	if err := w.Commit(ctx, details); err != nil {
		return nil, err
	}
	report.Path = path
	report.Duration = time.Since(began)
	return report, nil
}

// A partDetails is what the record of a part holds for the report of the whole.
type partDetails struct {
	Began     time.Time      `json:"began"`
	NonFinite []partSpecial  `json:"non_finite,omitempty"`
	Overflows []partOverflow `json:"overflows,omitempty"`
	Whole     *partWhole     `json:"whole,omitempty"` // of the first part
}

type partSpecial struct {
	Tensor string `json:"tensor"`
	Model  int    `json:"model"`
	Path   string `json:"path"`
	NaN    int64  `json:"nan"`
	Inf    int64  `json:"inf"`
}

type partOverflow struct {
	Tensor string `json:"tensor"`
	Count  int64  `json:"count"`
}

// A partWhole is what does not depend on the data.
type partWhole struct {
	Averaged     []string       `json:"averaged"`
	Integers     []string       `json:"integers"`
	Tensors      string         `json:"tensors"`
	OtherWeights []OtherWeights `json:"other_weights,omitempty"`
	Overflow     OverflowPolicy `json:"overflow"`
	ToNaN        []string       `json:"to_nan,omitempty"` // tensors that overflow to NaN
	BytesRead    int64          `json:"bytes_read"`
	BytesWritten int64          `json:"bytes_written"`
	SideFiles    string         `json:"side_files,omitempty"`
}

// details returns what the record of the part holds.
func (p *Plan) details(r *run, part Part, began time.Time) partDetails {
	d := partDetails{Began: began}
	for key, n := range r.counts.special {
		d.NonFinite = append(d.NonFinite, partSpecial{
			p.Steps[key[0]].Tensor.Name, key[1], p.Sources[key[1]].Path, n.NaN, n.Inf,
		})
	}
	for step, n := range r.counts.overflows {
		d.Overflows = append(d.Overflows, partOverflow{p.Steps[step].Tensor.Name, n})
	}
	if part.Number == 1 {
		all := p.report("")
		d.Whole = &partWhole{
			Averaged: all.Averaged, Integers: all.Integers, Tensors: all.tensors, OtherWeights: all.OtherWeights,
			Overflow: all.overflow, ToNaN: slices.Sorted(maps.Keys(all.toNaN)), BytesRead: all.BytesRead,
			BytesWritten: all.BytesWritten, SideFiles: part.SideFiles,
		}
	}
	return d
}

// facts returns what all parts have to agree about.
func (p *Plan) facts() ([]checkpoint.Fact, error) {
	dtype := "first"
	if p.Policies.DType != 0 {
		dtype = p.Policies.DType.String()
	}
	facts := []checkpoint.Fact{
		{Name: "rule", Value: p.Rule},
		{Name: "number of models", Value: fmt.Sprint(len(p.Sources))},
		{Name: "number of tensors", Value: fmt.Sprint(len(p.Steps))},
		{Name: "policy for integers", Value: string(p.Policies.Integers)},
		{Name: "policy for keys", Value: string(p.Policies.Keys)},
		{Name: "policy for numbers that are not finite", Value: string(p.Policies.NonFinite)},
		{Name: "policy for overflows", Value: string(p.Policies.Overflow)},
		{Name: "dtype of averages", Value: dtype},
	}
	for k, s := range p.Sources {
		sum, err := p.sample(k)
		if err != nil {
			return nil, err
		}
		facts = append(facts,
			checkpoint.Fact{Name: fmt.Sprintf("weight of model %d", k+1), Value: fmt.Sprint(s.Weight)},
			checkpoint.Fact{
				Name:  fmt.Sprintf("model %d", k+1),
				Value: fmt.Sprintf("%d bytes to read, tensors and sample %s", s.Bytes, sum),
				Differs: fmt.Sprintf("model %d (%s) has changed since the first part began, or is another one, or other "+
					"tensors of it are read", k+1, s.Path),
			})
	}
	h := sha256.New()
	for i := range p.Steps {
		s := &p.Steps[i]
		fmt.Fprintf(h, "%q %v %v %v %v", s.Tensor.Name, s.Tensor.DType, s.Action, s.Sources, s.DTypes)
		for _, w := range s.weights {
			fmt.Fprintf(h, " %016x", math.Float64bits(w))
		}
		fmt.Fprintln(h)
	}
	return append(facts, checkpoint.Fact{
		Name: "tensors, their sources and weights", Value: hex.EncodeToString(h.Sum(nil)[:8]), Summary: true,
	}), nil
}

// The sample of a model: so many pieces of so many bytes, evenly spread over the tensors that are read. Training
// changes all tensors of a model, so that one of its next step in the same place is found.
const (
	samplePieces = 16
	sampleBytes  = 4 << 10
)

// sample returns a checksum of the tensors of model k and a sample of the data that is read of it.
func (p *Plan) sample(k int) (string, error) {
	h := sha256.New()
	for _, t := range p.models[k].Tensors() {
		fmt.Fprintf(h, "%q %v %v\n", t.Name, t.DType, t.Shape)
	}
	var names []string
	for i := range p.Steps {
		if slices.Contains(p.Steps[i].Sources, k) && p.Steps[i].elements > 0 {
			names = append(names, p.Steps[i].Tensor.Name)
		}
	}
	slices.Sort(names)
	buffer := make([]byte, sampleBytes)
	for i := range samplePieces {
		if len(names) == 0 {
			break
		}
		name := names[i*len(names)/samplePieces]
		t, _ := p.models[k].Tensor(name)
		piece := buffer[:min(sampleBytes, t.Bytes())]
		off := (t.Bytes() - int64(len(piece))) / samplePieces * int64(i)
		n, err := p.models[k].ReadAt(name, piece, off)
		if n < len(piece) {
			return "", cmp.Or(err, io.ErrUnexpectedEOF)
		}
		if err := binary.Write(h, binary.LittleEndian, off); err != nil {
			return "", err
		}
		h.Write(piece)
	}
	return hex.EncodeToString(h.Sum(nil)[:8]), nil
}

// A FinishOption changes how [Finish] works.
type FinishOption func(*finishOptions)

type finishOptions struct {
	skipCheck bool
	create    []checkpoint.CreateOption
	progress  func(done, total int64)
}

// WithoutDataCheck leaves out the reading of the data: that the bytes are what the parts wrote. Records, sizes and
// headers are checked all the same.
func WithoutDataCheck() FinishOption { return func(o *finishOptions) { o.skipCheck = true } }

// WithFinishSync says whether the files are flushed to the disk before they get their names, which is the default.
func WithFinishSync(sync bool) FinishOption {
	return func(o *finishOptions) {
		o.create = nil
		if !sync {
			o.create = []checkpoint.CreateOption{checkpoint.WithoutSync()}
		}
	}
}

// WithFinishProgress sets a function that is called with the bytes that have been read to check them, and those to read
// in all; one call at a time.
func WithFinishProgress(progress func(done, total int64)) FinishOption {
	return func(o *finishOptions) { o.progress = progress }
}

// A Finished says what [Finish] did.
type Finished struct {
	Report    *Report // what that of [Plan.Run] is; its duration begins with the first part
	Parts     int
	SideFiles string   // the directory from which files were copied that are not weights; empty if none were to be
	Copied    []string // their names
	Skipped   []string // names of those that were there already

	// NotCopied says why none were copied: the directory cannot be opened as the model that the first part had there, as
	// where it is on another machine. The output is complete but for them.
	NotCopied error
}

// Finish puts the result that parts have written, see [Plan.RunPart], at path, as [Plan.Run] does with that of one
// process, and removes the unfinished output. Before, it checks that all parts are complete and reads the files to see
// that their bytes are what the parts wrote: see [checkpoint.Unfinished.Check] for the errors. No part may be running,
// on no machine, also none that is complete and run again: see [checkpoint.CreatePart]. Finish may fail, be killed or
// stopped at any moment and be called again. When nothing is left to do, the error wraps [checkpoint.ErrNoParts].
func Finish(ctx context.Context, path string, opts ...FinishOption) (*Finished, error) {
	var o finishOptions
	for _, opt := range opts {
		opt(&o)
	}
	u, err := checkpoint.OpenUnfinished(path)
	if err != nil {
		return nil, err
	}
	defer u.Close()
	var progress func(int64)
	if o.progress != nil {
		total := u.Bytes()
		progress = func(done int64) { o.progress(min(done, total), total) }
	}
	if err := u.Check(ctx, !o.skipCheck, progress); err != nil {
		return nil, err
	}
	f, began, err := gatherParts(path, u.Details())
	if err != nil {
		return nil, err
	}
	f.Parts = u.Parts()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err := u.Commit(o.create...); err != nil {
		return nil, err
	}
	if err := f.copySideFiles(ctx, path); err != nil {
		return nil, fmt.Errorf("%s: the weights are written, but not all other files: %w", path, err)
	}
	if err := u.Remove(); err != nil {
		return nil, fmt.Errorf("the output is written, but what is unfinished of it is not removed: %w", err)
	}
	f.Report.Removed = u.Removed()
	f.Report.Duration = time.Since(began)
	return f, nil
}

// copySideFiles copies the files of a model that are not weights. That the model is not there is no error, or else
// there would be no way to finish.
func (f *Finished) copySideFiles(ctx context.Context, path string) error {
	if f.SideFiles == "" {
		return nil
	}
	m, err := checkpoint.Open(f.SideFiles)
	if err != nil {
		f.NotCopied = fmt.Errorf("no other files are copied from %s: %w", f.SideFiles, err)
		return nil
	}
	defer m.Close()
	f.Copied, f.Skipped, err = checkpoint.CopySideFilesContext(ctx, m, path)
	return err
}

// gatherParts makes one report of the details of all parts. It also returns when the first one began.
func gatherParts(path string, list [][]byte) (*Finished, time.Time, error) {
	f := &Finished{Report: &Report{Path: path}}
	type key struct {
		tensor string
		model  int
	}
	special := make(map[key]NonFinite)
	overflows := make(map[string]int64)
	var began time.Time
	for i, text := range list {
		var d partDetails
		if err := json.Unmarshal(text, &d); err != nil {
			return nil, began, fmt.Errorf("part %d/%d of %s: its record: %w", i+1, len(list), path, err)
		}
		if i == 0 || d.Began.Before(began) {
			began = d.Began
		}
		for _, x := range d.NonFinite {
			k := key{x.Tensor, x.Model}
			n, ok := special[k]
			if !ok {
				n = NonFinite{Tensor: x.Tensor, Path: x.Path}
			}
			n.NaN += x.NaN
			n.Inf += x.Inf
			special[k] = n
		}
		for _, x := range d.Overflows {
			overflows[x.Tensor] += x.Count
		}
		if d.Whole == nil {
			continue
		}
		w := d.Whole
		f.SideFiles = w.SideFiles
		f.Report.Averaged, f.Report.Integers = w.Averaged, w.Integers
		f.Report.BytesRead, f.Report.BytesWritten = w.BytesRead, w.BytesWritten
		f.Report.tensors, f.Report.OtherWeights, f.Report.overflow = w.Tensors, w.OtherWeights, w.Overflow
		f.Report.toNaN = make(map[string]bool)
		for _, name := range w.ToNaN {
			f.Report.toNaN[name] = true
		}
	}
	keys := make([]key, 0, len(special))
	for k := range special {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b key) int {
		return cmp.Or(cmp.Compare(a.tensor, b.tensor), cmp.Compare(a.model, b.model))
	})
	for _, k := range keys {
		f.Report.NonFinite = append(f.Report.NonFinite, special[k])
	}
	for tensor, n := range overflows {
		f.Report.Overflows = append(f.Report.Overflows, Overflow{tensor, n})
	}
	slices.SortFunc(f.Report.Overflows, func(a, b Overflow) int { return cmp.Compare(a.Tensor, b.Tensor) })
	return f, began, nil
}
