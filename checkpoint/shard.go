package checkpoint

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// A Shard is one file of a model and the tensors that are in it.
type Shard struct {
	File    string   // its name in the directory of the model
	Tensors []string // their names, sorted
}

// The names of the files of a model directory, which all programs of the field share.
const (
	singleName     = "model.safetensors"
	indexName      = "model.safetensors.index.json"
	indexSuffix    = ".index.json"
	shardExtension = ".safetensors"
)

// maxFileName is the longest name of a file, in bytes, that common file systems allow.
const maxFileName = 255

// checkFileName returns an error unless name is a plain file name on every system: an index comes from strangers and
// must not lead out of its directory or to a device.
func checkFileName(name string) error {
	switch {
	case name == "":
		return errors.New("is empty, want a file name")
	case len(name) > maxFileName:
		return fmt.Errorf("has %d bytes, want a file name of at most %d", len(name), maxFileName)
	case name == "." || name == "..":
		return errors.New("is a directory, want a file name")
	case strings.ContainsAny(name, `/\:`):
		return errors.New(`has one of / \ : in it, want a file name in the directory of the model`)
	case strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return errors.New("has a control character in it, want a file name")
	case isDevice(name):
		return errors.New("is the name of a device on Windows, want that of a file")
	case strings.HasSuffix(name, ".") || strings.HasSuffix(name, " "):
		return errors.New("ends with a dot or a space, which Windows drops, want a file name")
	case !filepath.IsLocal(name):
		return errors.New("is no file name on this system")
	}
	return nil
}

// isDevice reports whether Windows takes the name for a device, whatever its extension.
func isDevice(name string) bool {
	base, _, _ := strings.Cut(name, ".")
	base = strings.ToUpper(strings.TrimRight(base, " "))
	switch base {
	case "CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$":
		return true
	}
	number, ok := strings.CutPrefix(base, "COM")
	if !ok {
		number, ok = strings.CutPrefix(base, "LPT")
	}
	switch number {
	case "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "¹", "²", "³":
		return ok
	}
	return false
}

// A shardPlan is a file to be written and the tensors in it.
type shardPlan struct {
	file    string
	tensors []Tensor
}

// planShards divides the tensors by the layout.
func planShards(tensors []Tensor, layout []Shard) ([]shardPlan, error) {
	if len(layout) == 0 {
		return nil, errors.New("the layout has no shard")
	}
	plans := make([]shardPlan, len(layout))
	files := make(map[string]string, len(layout)) // by name in lower case
	shardOf := make(map[string]int)
	for i, s := range layout {
		err := checkFileName(s.File)
		if err == nil && !strings.HasSuffix(s.File, shardExtension) {
			err = errors.New("want a name that ends with " + shardExtension)
		}
		key := strings.ToLower(s.File)
		if other, ok := files[key]; err == nil && ok {
			err = errors.New("given twice")
			if other != s.File {
				err = fmt.Errorf("differs from %s in case alone, and both are one file on some systems", quote(other))
			}
		}
		files[key] = s.File
		if err != nil {
			return nil, fmt.Errorf("shard %s: %w", quote(s.File), err)
		}
		plans[i].file = s.File
		for _, name := range s.Tensors {
			if j, ok := shardOf[name]; ok {
				return nil, fmt.Errorf("tensor %s: in shard %s and in shard %s", quote(name), quote(layout[j].File), quote(s.File))
			}
			shardOf[name] = i
		}
	}
	for _, t := range tensors {
		i, ok := shardOf[t.Name]
		if !ok {
			i = len(plans) - 1
		}
		plans[i].tensors = append(plans[i].tensors, t)
	}
	// A shard without tensors would be a file that no index names.
	used := slices.DeleteFunc(slices.Clone(plans), func(p shardPlan) bool { return len(p.tensors) == 0 })
	if len(used) == 0 {
		used = plans[:1]
	}
	return used, nil
}

// splitShards divides the tensors into shards of at most limit bytes of data, filled in the order of their names. A
// tensor that is larger has a shard of its own.
func splitShards(tensors []Tensor, limit int64) []shardPlan {
	sorted := slices.Clone(tensors)
	slices.SortFunc(sorted, func(a, b Tensor) int { return cmp.Compare(a.Name, b.Name) })
	var plans []shardPlan
	var filling []Tensor
	var filled int64
	for _, t := range sorted {
		n := max(t.Bytes(), 0) // what is wrong with the tensor is said when its file is laid out
		if n > limit {
			plans = append(plans, shardPlan{tensors: []Tensor{t}})
			continue
		}
		if n > limit-filled {
			plans = append(plans, shardPlan{tensors: filling})
			filling, filled = nil, 0
		}
		filling = append(filling, t)
		filled += n
	}
	if len(filling) > 0 || len(plans) == 0 {
		plans = append(plans, shardPlan{tensors: filling})
	}
	if len(plans) == 1 {
		plans[0].file = singleName
		return plans
	}
	for i := range plans {
		plans[i].file = fmt.Sprintf("model-%05d-of-%05d"+shardExtension, i+1, len(plans))
	}
	return plans
}
