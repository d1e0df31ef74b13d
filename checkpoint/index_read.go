package checkpoint

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// An index is a JSON object. Its weight_map says for every tensor in which file it is. What else is in it, total_size
// above all, says nothing that the files do not say themselves, and is often wrong.
const weightMapKey = "weight_map"

// openDirectory opens the model in the directory.
func openDirectory(dir string, o openOptions) (*Model, error) {
	index, single := filepath.Join(dir, indexName), filepath.Join(dir, singleName)
	hasIndex, err := exists(index)
	if err != nil {
		return nil, err
	}
	hasSingle, err := exists(single)
	if err != nil {
		return nil, err
	}
	switch {
	case hasIndex:
		m, err := openIndex(index, o)
		if err != nil {
			return nil, err
		}
		if hasSingle && !slices.ContainsFunc(m.shards, func(s Shard) bool { return s.File == singleName }) {
			return nil, errors.Join(bothError(dir), m.Close())
		}
		m.path = dir
		return m, nil
	case hasSingle:
		m, err := openSafetensors(single, o)
		if err != nil {
			return nil, err
		}
		m.path, m.dir = dir, dir
		return m, nil
	}
	return nil, neitherError(dir)
}

func bothError(dir string) error {
	return fmt.Errorf("%s: has both %s and %s, which is not in that index: ambiguous, want one of them", dir, indexName,
		singleName)
}

func neitherError(dir string) error {
	return noModelError(fmt.Sprintf("%s: is a directory with neither %s nor %s%s", dir, indexName, singleName,
		otherModels(dir)))
}

// A noModelError is about a directory without a model. It is [fs.ErrNotExist], whose text would be about the directory.
type noModelError string

func (e noModelError) Error() string        { return string(e) }
func (e noModelError) Is(target error) bool { return target == fs.ErrNotExist }

var shardName = regexp.MustCompile(`-\d+-of-\d+\.safetensors$`)

// otherModels names the models in a directory that have other names, and can be given themselves.
func otherModels(dir string) string {
	list, _ := os.ReadDir(dir) // to help is all that it is for
	var indexes, files []string
	shards := false
	for _, entry := range list {
		switch name := entry.Name(); {
		case strings.HasSuffix(name, ".safetensors.index.json"):
			indexes = append(indexes, quote(name))
		case shardName.MatchString(name):
			shards = true
		case strings.HasSuffix(name, ".safetensors"):
			files = append(files, quote(name))
		}
	}
	names := append(indexes, files...)
	const most = 2
	switch more := len(names) - most; {
	case len(names) == 0 && shards:
		return ", but shards, which need their index"
	case len(names) == 0:
		return ""
	case more > 0:
		return fmt.Sprintf(", but %s and %d more: give a file itself", strings.Join(names[:most], ", "), more)
	}
	return ", but " + strings.Join(names, ", ") + ": give the file itself"
}

// exists reports whether there is something at path.
func exists(path string) (bool, error) {
	_, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// openIndex opens the model of an index file: all its shards.
func openIndex(path string, o openOptions) (*Model, error) {
	weightMap, err := readIndex(path, o.headerLimit)
	if err != nil {
		return nil, err
	}
	t := &tensors{entries: make([]entry, 0, len(weightMap))}
	m := &Model{tensors: t, path: path, dir: filepath.Dir(path), index: path}
	files := make(map[string]int) // and how many tensors are in them
	for _, file := range weightMap {
		files[file]++
	}
	var keys []tensorsKey
	for _, file := range slices.Sorted(maps.Keys(files)) {
		key, err := m.addShard(file, files[file], weightMap, o)
		if err != nil {
			return nil, errors.Join(err, m.Close())
		}
		keys = append(keys, key)
	}
	t.key = shardsKey(t.shards, keys)
	if other := findTensors(t.key); other != nil {
		m.tensors = other
		return m, nil
	}
	t.entries = sortByName(t.entries)
	m.tensors = shareTensors(t)
	return m, nil
}

// addShard opens a shard, which has to have the mapped tensors and no others, and adds it to the model. It returns the key
// of its header.
func (m *Model) addShard(file string, mapped int, weightMap map[string]string, o openOptions) (key tensorsKey, err error) {
	shard, err := openSafetensors(filepath.Join(m.dir, file), o)
	if err != nil {
		return key, shardError(m.index, file, err)
	}
	m.sources = append(m.sources, shard.sources...)
	if m.shards == nil {
		m.metadata = shard.metadata
	}
	names := make([]string, len(shard.entries))
	for i := range shard.entries {
		name := shard.entries[i].Name
		names[i] = name
		if other, ok := weightMap[name]; !ok {
			return key, m.indexError(name, notMapped(file))
		} else if other != file {
			return key, m.indexError(name, mappedElsewhere(file, other))
		}
	}
	if len(names) < mapped {
		for _, name := range slices.Sorted(maps.Keys(weightMap)) {
			if weightMap[name] == file && shard.find(name) == nil {
				return key, m.indexError(name, notInShard(file))
			}
		}
	}
	m.shards = append(m.shards, Shard{File: file, Tensors: names})
	for _, e := range shard.entries {
		e.file = int32(len(m.sources) - 1)
		m.entries = append(m.entries, e)
	}
	return shard.key, nil
}

func (m *Model) indexError(name string, err error) error {
	return &FormatError{Path: m.index, Tensor: name, Err: err, aboutTensor: true}
}

func shardError(index, file string, err error) error {
	return fmt.Errorf("%s: shard %s: %w", index, quote(file), err)
}

// What may be wrong with a tensor of a model in shards.

func notMapped(file string) error {
	return fmt.Errorf("is in shard %s, but not in the %s", quote(file), weightMapKey)
}

func mappedElsewhere(file, other string) error {
	return fmt.Errorf("is in shard %s, but the %s says %s", quote(file), weightMapKey, quote(other))
}

func notInShard(file string) error {
	return fmt.Errorf("the %s says shard %s, which has no such tensor", weightMapKey, quote(file))
}

var errEmptyWeightMap = errors.New(weightMapKey + ": is empty, want one tensor at least")

// readIndex returns the weight_map of an index file.
func readIndex(path string, limit int64) (map[string]string, error) {
	text, err := readIndexText(path, limit)
	if err != nil {
		return nil, err
	}
	weightMap, err := parseIndex(text)
	if err != nil {
		return nil, formatError(path, err)
	}
	return weightMap, nil
}

// readIndexText returns the text of an index file.
func readIndexText(path string, limit int64) ([]byte, error) {
	s, err := openSource(path)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	if s.size > limit {
		return nil, &FormatError{Path: path, Err: fmt.Errorf("%w: an index of %d bytes, limit %d", ErrHeaderLimit, s.size, limit)}
	}
	text := make([]byte, s.size)
	if n, err := s.readFull(text, 0); err != nil {
		return nil, fmt.Errorf("%s: read %d of %d bytes: %w", path, n, len(text), err)
	}
	var more [1]byte
	if n, err := s.file.ReadAt(more[:], s.size); n > 0 || err != nil && !errors.Is(err, io.EOF) {
		return nil, errors.Join(fmt.Errorf("%s: %w: more than the %d bytes that it had", path, ErrChanged, s.size), err)
	}
	return text, nil
}

// parseIndex returns the weight_map of the index, which has one tensor at least.
func parseIndex(text []byte) (map[string]string, error) {
	if !utf8.Valid(text) {
		return nil, invalidUTF8(text, true)
	}
	s := &headerScanner{text: text, inIndex: true}
	if err := s.enterObject(); err != nil {
		return nil, err
	}
	var weightMap map[string]string
	for first := true; ; first = false {
		key, ok, err := s.nextKey(first)
		if err != nil {
			return nil, err
		}
		if !ok {
			break
		}
		if string(key) != weightMapKey {
			if err := s.skip(); err != nil {
				return nil, err
			}
			continue
		}
		if weightMap != nil {
			return nil, errors.New(weightMapKey + ": given twice")
		}
		if weightMap, err = parseWeightMap(s); err != nil {
			return nil, err
		}
	}
	if s.next(); s.pos < len(text) {
		return nil, s.fail("the end of the index")
	}
	switch {
	case weightMap == nil:
		return nil, errors.New("no " + weightMapKey)
	case len(weightMap) == 0:
		return nil, errEmptyWeightMap
	}
	return weightMap, nil
}

// parseWeightMap reads an object of tensors and files.
func parseWeightMap(s *headerScanner) (map[string]string, error) {
	if err := s.enterObject(); err != nil {
		return nil, fmt.Errorf("%s: %w", weightMapKey, err)
	}
	ahead := *s
	ahead.scratch = nil
	weightMap := make(map[string]string, ahead.countMembers())
	files := make(map[string]string) // one string for each file, not for each tensor
	for first := true; ; first = false {
		key, ok, err := s.nextKey(first)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", weightMapKey, err)
		}
		if !ok {
			return weightMap, nil
		}
		name := string(key)
		if _, ok := weightMap[name]; ok {
			return nil, inTensor(name, errors.New("given twice"))
		}
		value, err := s.string("a string, the name of a file")
		if err != nil {
			return nil, inTensor(name, err)
		}
		file, ok := files[string(value)]
		if !ok {
			file = string(value)
			if err := checkFileName(file); err != nil {
				return nil, inTensor(name, fmt.Errorf("shard %s: %w", quote(file), err))
			}
			files[file] = file
		}
		weightMap[name] = file
	}
}
