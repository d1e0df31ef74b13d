package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Violations yields every rule that the model at path breaks, where [Open], with the same path and options, returns the
// first error that it meets. It yields nothing exactly if Open succeeds and what Open does not look at is right: the
// total_size of the index, if it is given, is the sum of the bytes of all tensors; and the data of every member of a .npz
// file has the checksum that the archive says, for which all of it is read, and inflated.
//
// Of a safetensors file whose header is valid JSON that is every key and field of the header that is not as the format
// has it, every tensor whose data has not the size of its dtype and shape, begins before or after the end of the one
// before it, and every name that is given twice; of a file that was cut off it is the first tensor that is not there as a
// whole, and how many are not. Of a model in shards it is all that of every shard, every shard that is not there, every
// tensor that is in another shard than the index says, in none, or not in the index. Of a .npz file it is one rule for
// each member, of a .npy file one at most. What is wrong only because something else is, is left out where that can be
// told: holes in the data, if a tensor says nothing about where it is; the tensors of a shard that cannot be read.
//
// An error is a [FormatError] unless a file could not be read, or is not there. Errors of a shard begin with the path of
// the index. The memory is that of Open; a caller who does not want more than a few violations may stop.
func Violations(path string, opts ...OpenOption) iter.Seq[error] {
	return func(yield func(error) bool) {
		o, err := gatherOpenOptions(opts)
		if err != nil {
			yield(err)
			return
		}
		c := &checker{options: o, yield: yield}
		c.path(path)
	}
}

// A checker passes on errors until it is told to stop.
type checker struct {
	options openOptions
	yield   func(error) bool
	stopped bool
}

// report passes an error on, and returns false if no other is wanted.
func (c *checker) report(err error) bool {
	c.stopped = c.stopped || !c.yield(err)
	return !c.stopped
}

// path checks whatever is at path, as Open finds it.
func (c *checker) path(path string) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		c.report(err)
		return
	case info.IsDir():
		c.directory(path)
		return
	case strings.HasSuffix(path, indexSuffix):
		c.index(path)
		return
	}
	switch strings.ToLower(filepath.Ext(path)) {
	case npyExtension:
		c.npy(path)
	case npzExtension:
		c.npz(path)
	default:
		c.safetensors(path)
	}
}

// opened opens a file and calls check with it.
func (c *checker) opened(path string, check func(*source)) {
	s, err := openSource(path)
	if err != nil {
		c.report(err)
		return
	}
	defer s.Close()
	check(s)
}

func (c *checker) npy(path string) {
	c.opened(path, func(s *source) {
		if _, err := readNPY(s, c.options); err != nil {
			c.report(err)
		}
	})
}

func (c *checker) npz(path string) {
	c.opened(path, func(s *source) {
		members, err := readMembers(s, c.options.headerLimit)
		if err != nil {
			c.report(err)
			return
		}
		names := make([]string, 0, len(members))
		m := &Model{tensors: new(tensors)}
		good := true
		for _, f := range members {
			err := m.addMember(s, f, c.options)
			if err == nil {
				err = copyMember(c.options.ctx, io.Discard, f)
			}
			if c.options.ctx.Err() != nil {
				c.report(context.Cause(c.options.ctx))
				return
			}
			if good = good && err == nil; err != nil && !c.report(memberError(s, f, err)) {
				return
			}
			names = append(names, strings.TrimSuffix(f.Name, npyExtension))
		}
		if good {
			if err := checkLocalHeaders(s, members); err != nil && !c.report(err) {
				return
			}
		}
		for err := range givenTwice(names) {
			if !c.report(formatError(path, err)) {
				return
			}
		}
	})
}

// givenTwice yields an error for every name that is in the list more than once. It sorts the list.
func givenTwice(names []string) iter.Seq[error] {
	return func(yield func(error) bool) {
		slices.Sort(names)
		for i := 1; i < len(names); i++ {
			if names[i] == names[i-1] && (i == 1 || names[i] != names[i-2]) &&
				!yield(inTensor(names[i], errors.New("given twice"))) {
				return
			}
		}
	}
}

// contents are what could be read of the header of a safetensors file.
type contents struct {
	names   []string // of all tensors, sorted
	entries []entry  // those of which it is known where the data is
	read    bool     // the header is valid JSON: these are all names
	whole   bool     // and these are all entries
}

// safetensors checks a file. It returns what is in it.
func (c *checker) safetensors(path string) (found contents) {
	c.opened(path, func(s *source) {
		n, err := headerBytes(s, c.options.headerLimit)
		if err != nil {
			c.report(err)
			return
		}
		text, err := readHeader(s, n)
		if err != nil {
			c.report(err)
			return
		}
		dataBytes := s.size - lengthBytes - n
		// Most files are good, and that is found out in a fraction of the time.
		if h, err := parseHeader(c.options.ctx, text); err == nil && h.check(dataBytes) == nil {
			found = contents{names: make([]string, len(h.entries)), entries: h.entries, read: true, whole: true}
			for i := range h.entries {
				found.names[i] = h.entries[i].Name
			}
			return
		}
		if c.options.ctx.Err() != nil {
			c.report(context.Cause(c.options.ctx))
			return
		}
		report := func(err error) bool { return c.report(formatError(path, err)) }
		if found = c.header(text, report); c.stopped {
			return
		}
		for err := range givenTwice(found.names) {
			if !report(err) {
				return
			}
		}
		for err := range coverage(found.entries, dataBytes, found.whole) {
			if !report(err) {
				return
			}
		}
	})
	return found
}

// header checks the text of a header, and returns what is in it. The text is read up to the first byte that makes it no
// JSON.
func (c *checker) header(text []byte, report func(error) bool) (found contents) {
	if !utf8.Valid(text) {
		report(invalidUTF8(text, false))
		return found
	}
	h := new(header)
	hasMetadata, complete := false, true
	s := &headerScanner{text: text}
	err := members(s, func(key string, value *headerScanner) bool {
		if key == metadataKey {
			if hasMetadata && !report(fmt.Errorf("%s: given twice", metadataKey)) {
				return false
			}
			hasMetadata = true
			return metadataViolations(value, func(err error) bool {
				return report(fmt.Errorf("%s: %w", metadataKey, err))
			})
		}
		found.names = append(found.names, key)
		placed, more := h.tensorViolations(value, key, func(err error) bool { return report(inTensor(key, err)) })
		complete = complete && placed
		return more
	})
	if err == nil {
		err = s.end()
	}
	found.entries, found.read, found.whole = h.entries, err == nil, complete && err == nil
	if err != nil && !c.stopped {
		report(err)
	}
	return found
}

// members reads an object and calls visit with every key and a scanner that stands before the value, until it returns
// false. The value is valid JSON.
func members(s *headerScanner, visit func(key string, value *headerScanner) bool) error {
	if err := s.enterObject(); err != nil {
		return err
	}
	for first := true; ; first = false {
		k, ok, err := s.nextKey(first)
		if !ok {
			return err
		}
		key, value := string(k), *s
		value.scratch = nil
		if err := s.skip(); err != nil {
			return err
		}
		if !visit(key, &value) {
			return nil
		}
	}
}

// metadataViolations checks the value of the metadata, and returns false if no other error is wanted.
func metadataViolations(s *headerScanner, report func(error) bool) (more bool) {
	if s.next() == 'n' {
		return true
	}
	keys := newKeySet(s.text)
	if ahead := *s; ahead.enterObject() == nil {
		keys.readObject(&ahead)
	}
	again := keys.repeated(true)
	more = true
	err := members(s, func(key string, value *headerScanner) bool {
		if len(again) > 0 && again[0] < value.pos {
			again = again[1:]
			more = report(fmt.Errorf("key %s: given twice", quote(key)))
		}
		if _, err := value.string("a string"); err != nil && more {
			more = report(fmt.Errorf("key %s: %w", quote(key), err))
		}
		return more
	})
	if err != nil && more {
		more = report(err)
	}
	return more
}

// tensorViolations checks the value of a tensor and adds it to the entries if it is known where the data is. It returns
// whether it is, and false for more if no other error is wanted.
func (h *header) tensorViolations(s *headerScanner, name string, report func(error) bool) (placed, more bool) {
	e := entry{Tensor: Tensor{Name: name}}
	var begin, end uint64
	var seen, good int // sets of fields
	more = true
	fail := func(err error) {
		if err != nil && more {
			more = report(err)
		}
	}
	err := members(s, func(key string, value *headerScanner) bool {
		var field int
		var err error
		switch key {
		case "dtype":
			field = fieldDType
			e.DType, err = parseDTypeField(value)
		case "shape":
			field = fieldShape
			e.Shape, err = h.parseShape(value)
		case "data_offsets":
			field = fieldOffsets
			begin, end, err = parseOffsets(value)
		default:
			return true
		}
		if err != nil {
			fail(fmt.Errorf("%s: %w", fieldNames[field], err))
		} else {
			good |= field
		}
		if seen&field != 0 {
			fail(fmt.Errorf("%s: given twice", fieldNames[field]))
		}
		seen |= field
		return more
	})
	if err != nil { // it is no object
		fail(err)
		return false, more
	}
	for field := fieldDType; field <= fieldOffsets; field <<= 1 {
		if seen&field == 0 {
			fail(fmt.Errorf("no %s", fieldNames[field]))
		}
	}
	if good == fieldDType|fieldShape|fieldOffsets {
		fail(e.place(begin, end))
	} else if good&fieldOffsets != 0 {
		fail(checkOffsets(begin, end)) // whatever else is wrong
	}
	if good&fieldOffsets == 0 || end < begin || end > math.MaxInt64 {
		return false, more
	}
	e.offset, e.size = int64(begin), int64(end-begin)
	h.entries = append(h.entries, e)
	return true, more
}

// directory checks a model directory.
func (c *checker) directory(dir string) {
	index, single := filepath.Join(dir, indexName), filepath.Join(dir, singleName)
	hasIndex, err := exists(index)
	if err != nil {
		c.report(err)
		return
	}
	hasSingle, err := exists(single)
	if err != nil {
		c.report(err)
		return
	}
	switch {
	case hasIndex:
		files := c.index(index)
		if hasSingle && files != nil && !files[singleName] && !c.stopped {
			c.report(bothError(dir))
		}
	case hasSingle:
		c.safetensors(single)
	default:
		c.report(neitherError(dir))
	}
}

// index checks an index and its shards. It returns the files in the weight_map, or nil if there is none.
func (c *checker) index(path string) map[string]bool {
	text, err := readIndexText(path, c.options.headerLimit)
	if err != nil {
		c.report(err)
		return nil
	}
	report := func(err error) bool { return c.report(formatError(path, err)) }
	x := c.indexText(text, report)
	if x == nil || c.stopped {
		return nil
	}
	files := make(map[string]bool)
	for _, file := range x.weightMap {
		files[file] = true
	}
	delete(files, "")
	shards := make(map[string]contents)
	readable := true
	for _, file := range slices.Sorted(maps.Keys(files)) {
		in := checker{options: c.options, yield: func(err error) bool { return c.report(shardError(path, file, err)) }}
		shards[file] = in.safetensors(filepath.Join(filepath.Dir(path), file))
		if c.stopped {
			return files
		}
		readable = readable && shards[file].whole
	}
	if !c.mapping(x, shards, report) {
		return files
	}
	if x.totalSize != nil && readable {
		var total int64
		for _, s := range shards {
			for i := range s.entries {
				total += s.entries[i].size
			}
		}
		if got, err := strconv.ParseFloat(string(x.totalSize), 64); err != nil || got != float64(total) {
			report(fmt.Errorf("metadata: total_size: got %s, want %d, the bytes of all tensors", shorten(x.totalSize), total))
		}
	}
	return files
}

// shorten returns the text, and only its beginning if it is long.
func shorten(text []byte) string {
	const most = 40
	if len(text) > most {
		return string(text[:most]) + "…"
	}
	return string(text)
}

// An indexContents is what could be read of an index.
type indexContents struct {
	weightMap map[string]string // with an empty file where that is wrong
	totalSize []byte            // JSON, or nil
}

// indexText checks the text of an index and returns what is in it, or nil if there is no weight_map.
func (c *checker) indexText(text []byte, report func(error) bool) *indexContents {
	if !utf8.Valid(text) {
		report(invalidUTF8(text, true))
		return nil
	}
	x := new(indexContents)
	s := &headerScanner{text: text, inIndex: true}
	err := members(s, func(key string, value *headerScanner) bool {
		switch key {
		case weightMapKey:
			if x.weightMap != nil && !report(errors.New(weightMapKey+": given twice")) {
				return false
			}
			x.weightMap = make(map[string]string)
			return weightMapViolations(x.weightMap, value, report)
		case "metadata":
			_ = members(value, func(key string, value *headerScanner) bool { // it need not be an object
				if key == "total_size" {
					value.next()
					start := value.pos
					_ = value.skip() // is valid JSON, or nobody would have been called
					x.totalSize = value.text[start:value.pos]
				}
				return true
			})
		}
		return true
	})
	if err == nil && !c.stopped {
		if s.next(); s.pos < len(text) {
			err = s.fail("the end of the index")
		}
	}
	switch {
	case c.stopped:
		return nil
	case err != nil:
		report(err)
		return nil
	case x.weightMap == nil:
		report(errors.New("no " + weightMapKey))
		return nil
	}
	return x
}

// weightMapViolations puts into the map what is in an object of tensors and files, and returns false if no other error is
// wanted.
func weightMapViolations(weightMap map[string]string, s *headerScanner, report func(error) bool) (more bool) {
	more = true
	empty := true
	files := make(map[string]error)
	err := members(s, func(name string, value *headerScanner) bool {
		empty = false
		if _, ok := weightMap[name]; ok {
			more = report(inTensor(name, errors.New("given twice")))
			return more
		}
		weightMap[name] = ""
		file, err := value.string("a string, the name of a file")
		if err != nil {
			more = report(inTensor(name, err))
			return more
		}
		wrong, ok := files[string(file)]
		if !ok {
			wrong = checkFileName(string(file))
			files[string(file)] = wrong
		}
		if wrong != nil {
			more = report(inTensor(name, fmt.Errorf("shard %s: %w", quote(file), wrong)))
			return more
		}
		weightMap[name] = string(file)
		return true
	})
	switch {
	case !more:
	case err != nil:
		more = report(fmt.Errorf("%s: %w", weightMapKey, err))
	case empty:
		more = report(errEmptyWeightMap)
	}
	return more
}

// mapping compares the index with what is in the shards, and returns false if no other error is wanted.
func (c *checker) mapping(x *indexContents, shards map[string]contents, report func(error) bool) bool {
	misplaced := make(map[string]bool)
	for _, file := range slices.Sorted(maps.Keys(shards)) {
		for _, name := range slices.Compact(shards[file].names) {
			other, ok := x.weightMap[name]
			if ok && (other == file || other == "") {
				continue
			}
			misplaced[name] = true
			err := notMapped(file)
			if ok {
				err = mappedElsewhere(file, other)
			}
			if !report(inTensor(name, err)) {
				return false
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(x.weightMap)) {
		file := x.weightMap[name]
		if _, ok := slices.BinarySearch(shards[file].names, name); ok || misplaced[name] || !shards[file].read {
			continue
		}
		if !report(inTensor(name, notInShard(file))) {
			return false
		}
	}
	return true
}
