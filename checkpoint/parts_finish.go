package checkpoint

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// An Unfinished is the output of parts that several processes have written or are writing. It is made by
// [OpenUnfinished], and finished by Check, Commit and Remove. Its methods may not be called at the same time.
type Unfinished struct {
	path    string
	target  string
	dir     string
	plan    *sharedPlan
	records []partRecord // of the parts that are complete, in order
	lock    *os.File     // of the directory; nil without locks, and while parts are running
	running bool         // parts had the lock when it was opened

	checked bool
	placed  []bool   // the files that are in their places, put there by a process that was stopped
	removed []string // by Commit
}

// OpenUnfinished opens the unfinished output of path, that is, reads its plan and the records of its complete parts.
// The error wraps [ErrNoParts] if there is none, which is so after it was finished, and [ErrOtherPlan] if a record is
// of another plan. Two processes of one machine cannot have it open at once. The Unfinished has to be closed. What runs
// that were killed have left is removed, as by [RemoveStale].
func OpenUnfinished(path string) (*Unfinished, error) {
	u := &Unfinished{path: path}
	u.target, u.dir = partsDirectory(path)
	removeStaleParts(u.dir)
	_, _ = RemoveStale(u.path) // what one that was killed has left in its place: as in createAtomic
	there, err := exists(u.dir)
	if err != nil {
		return nil, err
	}
	if !there {
		return nil, fmt.Errorf("%s: %w: there is no %s", path, ErrNoParts, u.dir)
	}
	u.plan, err = readPlan(u.dir, u.target)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w: %s has no plan, as where no part has begun yet or a removal was stopped: "+
			"discard it if no part is about to begin", path, ErrNoParts, u.dir)
	}
	if err != nil {
		return nil, err
	}
	if err := u.takeLock(); err != nil {
		return nil, err
	}
	if err := u.readRecords(); err != nil {
		u.Close()
		return nil, err
	}
	return u, nil
}

// takeLock keeps other processes of this machine from finishing the output at the same time. If parts have the lock, it
// is taken by Check.
func (u *Unfinished) takeLock() error {
	f, err := lockParts(u.dir, false, 0)
	switch {
	case errors.Is(err, errRunning):
		u.running = true
	case errors.Is(err, errNotThere):
		return fmt.Errorf("%s: %w: %w", u.path, ErrNoParts, err)
	case err != nil:
		return fmt.Errorf("%s: %w", u.path, err)
	default:
		u.lock = f
	}
	return nil
}

// waitForParts takes the lock that parts had before, and reads their records again.
func (u *Unfinished) waitForParts() error {
	if !u.running {
		return nil
	}
	f, err := lockParts(u.dir, false, partsLockWait)
	if err != nil {
		return fmt.Errorf("%s: %w", u.path, err)
	}
	u.lock, u.running, u.records = f, false, nil
	if err := u.readRecords(); err != nil {
		return err
	}
	return u.missingError()
}

// readRecords reads the records of the parts that are complete.
func (u *Unfinished) readRecords() error {
	entries, err := os.ReadDir(u.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "part-") {
			continue
		}
		path := filepath.Join(u.dir, e.Name())
		named, ok := recordPart(e.Name())
		if !ok {
			return fmt.Errorf("%s: is not the record of a part: remove it", path)
		}
		var r partRecord
		if err := readJSON(path, &r); err != nil {
			return fmt.Errorf("%w: run part %v again", err, named)
		}
		part := Part{r.Number, r.Of}
		if err := part.check(); err != nil || e.Name() != recordName(part) {
			return fmt.Errorf("%s: is the record of part %v, which its name does not say", path, part)
		}
		if r.Digest != u.plan.Digest {
			return fmt.Errorf("part %v of %s: %s: %w: its digest is %.16s, want %.16s", part, u.path, path,
				ErrOtherPlan, r.Digest, u.plan.Digest)
		}
		if r.Of != u.plan.Parts {
			return fmt.Errorf("part %v of %s: %s: want one of %d parts", part, u.path, path, u.plan.Parts)
		}
		for _, x := range r.Spans {
			if x.File < 0 || x.File >= len(u.plan.Files) || x.Begin < 0 || x.Begin >= x.End ||
				x.End > u.plan.Files[x.File].Size {
				return fmt.Errorf("%s: the file is damaged: bytes %d to %d of file %d: run part %v again", path, x.Begin,
					x.End, x.File, part)
			}
		}
		u.records = append(u.records, r)
	}
	slices.SortFunc(u.records, func(a, b partRecord) int { return a.Number - b.Number })
	return nil
}

// Parts returns how many parts the output has.
func (u *Unfinished) Parts() int { return u.plan.Parts }

// Bytes returns the size of all files of the output.
func (u *Unfinished) Bytes() int64 {
	var n int64
	for _, f := range u.plan.Files {
		n += f.Size
	}
	return n
}

// Missing returns the numbers of the parts that are not complete, in order.
func (u *Unfinished) Missing() []int {
	var missing []int
	next := 0
	for i := 1; i <= u.plan.Parts; i++ {
		if next < len(u.records) && u.records[next].Number == i {
			next++
			continue
		}
		missing = append(missing, i)
	}
	return missing
}

// Details returns what the complete parts have given to [PartWriter.Commit], in the order of their numbers.
func (u *Unfinished) Details() [][]byte {
	details := make([][]byte, len(u.records))
	for i, r := range u.records {
		details[i] = r.Details
	}
	return details
}

// maxMissing is how many missing parts an error names.
const maxMissing = 20

// missingError returns an error that names the missing parts, or nil if there are none.
func (u *Unfinished) missingError() error {
	missing := u.Missing()
	if len(missing) == 0 {
		return nil
	}
	var names []string
	for _, i := range missing[:min(len(missing), maxMissing)] {
		names = append(names, Part{i, u.plan.Parts}.String())
	}
	last := names[len(names)-1]
	if n := len(missing) - len(names); n > 0 {
		names, last = append(names, ""), fmt.Sprintf("%d more", n)
	}
	if len(names) == 1 {
		return fmt.Errorf("%s: part %s is %w", u.path, last, ErrMissingParts)
	}
	return fmt.Errorf("%s: parts %s and %s are %w", u.path, strings.Join(names[:len(names)-1], ", "), last,
		ErrMissingParts)
}

// An ownedSpan is a recorded span and the part that has written it.
type ownedSpan struct {
	recordedSpan
	part int
}

// Check returns an error unless the output is complete and what its parts have written: every part has a record (the
// error wraps [ErrMissingParts] otherwise, and names those that have none), the parts together have written every byte,
// the files have their sizes, and their bytes the checksums of the records (the error wraps [ErrDamaged] otherwise, and
// names file, bytes and part). With data false, the bytes are not read, unless an earlier Commit was stopped: which
// files are in their places already is told by their contents.
//
// A part that is still running on this machine is an error, after a short wait.
//
// Unless progress is nil, it is called with the bytes read so far, one call at a time. When ctx is done, the error is
// its cause.
func (u *Unfinished) Check(ctx context.Context, data bool, progress func(done int64)) error {
	u.checked = false
	if err := u.missingError(); err != nil {
		return err
	}
	if err := u.waitForParts(); err != nil {
		return err
	}
	placing, err := exists(filepath.Join(u.dir, partsPlacing))
	if err != nil {
		return err
	}
	spans, err := u.spans()
	if err != nil {
		return err
	}
	c := &partsCheck{data: data || placing, progress: progress}
	u.placed = make([]bool, len(u.plan.Files))
	var damaged error // of the first file that is not there or not as it was written
	lacking := make([]bool, len(u.plan.Files))
	for i, f := range u.plan.Files {
		path := filepath.Join(u.dir, partsData, f.Name)
		if err := c.file(ctx, path, f, spans[i], u.plan.Parts); err != nil {
			lacking[i] = true
			damaged = cmp.Or(damaged, fmt.Errorf("%s: %w", u.path, err))
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if damaged != nil && !placing {
			return damaged
		}
	}
	if damaged != nil {
		// A process that was stopped has put files in their places: all of them, in exchange for old ones, of which
		// some may be the same, or one by one. Then an index that is not there yet has to come last, also if it is like
		// the old one.
		for i, f := range u.plan.Files {
			u.placed[i] = c.file(ctx, u.place(f), f, spans[i], u.plan.Parts) == nil
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if lacking[i] && !u.placed[i] {
				return damaged
			}
		}
		if slices.Contains(u.placed, false) {
			u.placed = lacking
		}
	}
	u.checked = true
	return nil
}

// place returns the final path of a file.
func (u *Unfinished) place(f partFile) string {
	if u.plan.Directory {
		return filepath.Join(u.target, f.Name)
	}
	return u.target
}

// spans returns the spans of each file, sorted. It returns an error if they leave out bytes.
func (u *Unfinished) spans() ([][]ownedSpan, error) {
	spans := make([][]ownedSpan, len(u.plan.Files))
	for _, r := range u.records {
		for _, x := range r.Spans {
			spans[x.File] = append(spans[x.File], ownedSpan{x, r.Number})
		}
	}
	for i, f := range u.plan.Files {
		slices.SortFunc(spans[i], func(a, b ownedSpan) int { return cmp.Compare(a.Begin, b.Begin) })
		var end int64
		for _, x := range spans[i] {
			if x.Begin > end {
				break
			}
			end = max(end, x.End)
		}
		if end != f.Size {
			return nil, fmt.Errorf("%s: file %s: %w: no part has written what follows byte %d of %d", u.path,
				quote(f.Name), ErrIncomplete, end, f.Size)
		}
	}
	return spans, nil
}

// A partsCheck compares files with records.
type partsCheck struct {
	data     bool
	mu       sync.Mutex
	done     int64
	progress func(int64)
}

// checkBlock is what one goroutine reads of a file at a time.
const (
	checkBlock  = 16 << 20
	checkBuffer = 1 << 20
)

// file returns an error unless the file at path has its size, and its spans have their checksums.
func (c *partsCheck) file(ctx context.Context, path string, f partFile, spans []ownedSpan, parts int) error {
	s, err := openSource(path)
	if err != nil {
		return err
	}
	defer s.Close()
	if s.size != f.Size {
		return fmt.Errorf("%s: %w: has %d bytes, want %d", path, ErrDamaged, s.size, f.Size)
	}
	head := make([]byte, f.Data)
	if _, err := s.readFull(head, 0); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if got := hexSHA256(head); got != f.Header {
		return fmt.Errorf("%s: %w: the header has SHA-256 %.16s, want %.16s: run part %v again", path, ErrDamaged, got,
			f.Header, Part{spans[0].part, parts})
	}
	if !c.data {
		return nil
	}
	type block struct {
		span       int
		begin, end int64
	}
	var blocks []block
	for i, x := range spans {
		for begin := x.Begin; begin < x.End; begin += checkBlock {
			blocks = append(blocks, block{i, begin, min(begin+checkBlock, x.End)})
		}
	}
	sums := make([]uint32, len(blocks))
	errs := make([]error, len(blocks))
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(blocks)) {
		workers.Go(func() {
			buffer := make([]byte, checkBuffer)
			for {
				i := int(next.Add(1) - 1)
				if i >= len(blocks) {
					return
				}
				sums[i], errs[i] = c.sum(ctx, s, buffer, blocks[i].begin, blocks[i].end)
				if errs[i] != nil {
					next.Store(int64(len(blocks)))
				}
			}
		})
	}
	workers.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	got := make([]uint32, len(spans))
	for i, b := range blocks {
		got[b.span] = combine(got[b.span], sums[i], b.end-b.begin)
	}
	for i, x := range spans {
		if got[i] != x.Sum {
			return fmt.Errorf("%s: %w: bytes %d to %d have CRC-32C %08x, want %08x: run part %v again", path,
				ErrDamaged, x.Begin, x.End, got[i], x.Sum, Part{x.part, parts})
		}
	}
	return nil
}

// sum returns the checksum of bytes of the file.
func (c *partsCheck) sum(ctx context.Context, s *source, buffer []byte, begin, end int64) (uint32, error) {
	var sum uint32
	for begin < end {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		p := buffer[:min(int64(len(buffer)), end-begin)]
		if _, err := s.readFull(p, begin); err != nil {
			return 0, fmt.Errorf("%s: %w", s.path, err)
		}
		sum = combine(sum, checksum(p), int64(len(p)))
		begin += int64(len(p))
		if c.progress != nil {
			c.mu.Lock()
			c.done += int64(len(p))
			c.progress(c.done)
			c.mu.Unlock()
		}
	}
	return sum, nil
}

// Commit puts the output in its place, as [Writer.Commit] does; it has to have passed Check. Of the options only
// [WithoutSync] has a meaning. After an error the unfinished output is still there, and after one in the middle of
// replacing the files of a directory one by one, some of them are in their places: both can be tried again, by this
// process or another, beginning with Check. A process that is killed is no different.
func (u *Unfinished) Commit(opts ...CreateOption) error {
	o := createOptions{sync: true}
	for _, opt := range opts {
		opt(&o)
	}
	if !u.checked {
		return fmt.Errorf("%s: commit: want a Check before", u.path)
	}
	u.checked = false
	if !slices.Contains(u.placed, false) {
		if !u.plan.Directory {
			return nil
		}
		// A file that came to the old directory in the last moment.
		err := rescue(filepath.Join(u.dir, partsData), u.target)
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return err
	}
	_, _ = RemoveStale(u.target) // as in createAtomic
	if err := writeJSON(filepath.Join(u.dir, partsPlacing), struct{}{}, false, o.sync); err != nil {
		return err
	}
	before := u.files()
	var err error
	if u.plan.Directory {
		err = u.commitDirectory(o.sync)
	} else {
		err = u.commitFile(o.sync)
	}
	// If nothing was moved, the parts can be run again, and the output be discarded.
	if err != nil && !slices.Contains(u.placed, true) && slices.EqualFunc(before, u.files(), sameFile) {
		_ = os.Remove(filepath.Join(u.dir, partsPlacing)) // the error before this counts
	}
	return err
}

// files returns what there is of each file in the unfinished output and in its place; nil if there is nothing.
func (u *Unfinished) files() []fs.FileInfo {
	list := make([]fs.FileInfo, 0, 2*len(u.plan.Files))
	for _, f := range u.plan.Files {
		for _, path := range []string{filepath.Join(u.dir, partsData, f.Name), u.place(f)} {
			info, err := os.Lstat(path)
			if err != nil {
				info = nil
			}
			list = append(list, info)
		}
	}
	return list
}

// sameFile reports whether a and b are the same file, or both are nil.
func sameFile(a, b fs.FileInfo) bool {
	return a == nil && b == nil || a != nil && b != nil && os.SameFile(a, b)
}

// commitFile puts the one file in its place.
func (u *Unfinished) commitFile(sync bool) error {
	perm, keep, err := targetMode(u.target)
	if err != nil {
		return err
	}
	f, err := u.open(0, u.target)
	if err != nil {
		return err
	}
	if keep {
		if err := setMode(f.file, perm); err != nil {
			return errors.Join(fmt.Errorf("%s: %w", u.path, err), f.discard())
		}
	}
	return f.commit(sync)
}

// open opens a file of the unfinished output to be put in its place.
func (u *Unfinished) open(i int, target string) (*atomicFile, error) {
	f := u.plan.Files[i]
	temp := filepath.Join(u.dir, partsData, f.Name)
	file, err := os.OpenFile(temp, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return &atomicFile{target: target, name: u.place(f), temp: temp, file: file, size: f.Size, keep: true}, nil
}

// commitDirectory puts the files of a directory in their places, all in one step where that can be done.
func (u *Unfinished) commitDirectory(sync bool) error {
	there, err := directoryThere(u.target)
	if err != nil {
		return err
	}
	d := &outputDirectory{target: u.target, keep: true}
	if there {
		plans := make([]shardPlan, len(u.plan.Files))
		for i, f := range u.plan.Files {
			plans[i].file = f.Name
		}
		if err := d.checkOthers(plans, u.plan.Index); err != nil {
			return err
		}
		d.exchange = u.exchangeable()
	}
	dir := u.target
	if !there || d.exchange {
		d.temp = filepath.Join(u.dir, partsData)
		dir = d.temp
	}
	for i, f := range u.plan.Files {
		if u.placed[i] {
			d.there = append(d.there, f.Name)
			continue
		}
		perm, keep, err := targetMode(u.place(f))
		if err != nil {
			return errors.Join(err, d.discard())
		}
		file, err := u.open(i, filepath.Join(dir, f.Name))
		if err != nil {
			return errors.Join(err, d.discard())
		}
		if u.plan.Index && i == len(u.plan.Files)-1 {
			d.index = file
		} else {
			d.shards = append(d.shards, file)
		}
		if keep {
			if err := setMode(file.file, perm); err != nil {
				return errors.Join(fmt.Errorf("%s: %w", u.path, err), d.discard())
			}
		}
	}
	err = d.commit(sync)
	u.removed = d.removed
	return err
}

// Removed returns what [Writer.Removed] does: the names of the files that Commit removed.
func (u *Unfinished) Removed() []string { return slices.Clone(u.removed) }

// exchangeable reports whether the directory at the target can and has to be replaced as a whole: see
// createInDirectory.
func (u *Unfinished) exchangeable() bool {
	if !u.plan.Index || slices.Contains(u.placed, true) {
		return false
	}
	if !slices.ContainsFunc(u.plan.Files, func(f partFile) bool {
		there, err := exists(u.place(f))
		return err == nil && there && f.Name != indexName
	}) {
		return false
	}
	probe := filepath.Join(u.dir, partsProbe)
	if err := os.RemoveAll(probe); err != nil {
		return false
	}
	if err := os.Mkdir(probe, 0o777); err != nil {
		return false
	}
	defer os.RemoveAll(probe)
	return checkReplaceable(u.target, probe) == nil
}

// Remove removes the unfinished output, with what is left of it after Commit, or to give it up. A removal that is
// stopped leaves nothing that could be taken for an unfinished output.
func (u *Unfinished) Remove() error {
	if !renamesOpenFiles {
		u.Close()
	}
	defer u.Close()
	return removeParts(u.path, u.dir)
}

// errNothingToDiscard is ErrNoParts in other words: whoever discards an output did not mean to finish it.
var errNothingToDiscard error = nothingToDiscard{}

type nothingToDiscard struct{}

func (nothingToDiscard) Error() string        { return "there is nothing to discard" }
func (nothingToDiscard) Is(target error) bool { return target == ErrNoParts }

// DiscardParts removes the unfinished output of path and returns its path. The error wraps [ErrNoParts] if there is
// none.
//
// It is an error if a process has begun to put the files in their places: some of them may be there already, the old
// ones be gone or be in the unfinished output, and only finishing it makes a whole model of that. So is another process
// of this machine that finishes it or writes a part of it. On other machines, none may be writing a part; one that does
// will fail.
func DiscardParts(path string) (string, error) {
	target, dir := partsDirectory(path)
	removeStaleParts(dir)
	info, err := os.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%s: %w: there is no %s", path, errNothingToDiscard, dir)
	}
	if err != nil {
		return "", err
	}
	if !info.IsDir() {
		return "", fmt.Errorf("%s: is not a directory and not an unfinished output", dir)
	}
	held, err := lockParts(dir, false, partsLockWait)
	if errors.Is(err, errNotThere) {
		return "", fmt.Errorf("%s: %w: %w", path, errNothingToDiscard, err)
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	if held != nil {
		defer held.Close()
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	there := make(map[string]bool)
	for _, e := range entries {
		there[e.Name()] = true
		switch name := e.Name(); {
		case slices.Contains([]string{partsPlan, partsData, partsPlacing, partsProbe}, name):
		case strings.HasPrefix(name, "part-"), strings.HasPrefix(name, "."):
		default:
			return "", fmt.Errorf("%s: has %s in it, which no part has written: remove that first", dir, quote(name))
		}
	}
	if there[partsPlacing] {
		if there[partsPlan] {
			return "", fmt.Errorf("%s: its files are being put in their places, or that was stopped: finish it. If that "+
				"cannot be done, look whether %s has old files, and remove %s by hand", path, filepath.Join(dir, partsData),
				dir)
		}
		// The files are in their places; the removal was stopped.
		if err := rescue(filepath.Join(dir, partsData), target); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("%s: %w", path, err)
		}
	}
	if held != nil && !renamesOpenFiles {
		held.Close()
	}
	return dir, removeParts(path, dir)
}

// Close ends the finishing. It removes nothing. A second Close, or one after Remove, does nothing.
func (u *Unfinished) Close() error {
	if u.lock == nil {
		return nil
	}
	f := u.lock
	u.lock = nil
	return f.Close()
}
