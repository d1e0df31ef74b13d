package checkpoint

import (
	"cmp"
	"slices"
	"strconv"
)

// appendIndex appends the index of the shards to b: the sum of the bytes of all tensors, and the tensors by name.
func appendIndex(b []byte, plans []shardPlan) []byte {
	type mapped struct{ name, file string }
	var tensors []mapped
	var total int64
	for _, p := range plans {
		for _, t := range p.tensors {
			tensors = append(tensors, mapped{t.Name, p.file})
			total += t.Bytes()
		}
	}
	slices.SortFunc(tensors, func(a, b mapped) int { return cmp.Compare(a.name, b.name) })
	b = append(b, "{\n  \"metadata\": {\n    \"total_size\": "...)
	b = strconv.AppendInt(b, total, 10)
	b = append(b, "\n  },\n  \"weight_map\": {"...)
	for i, t := range tensors {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, "\n    "...)
		b = appendString(b, t.name)
		b = append(b, ": "...)
		b = appendString(b, t.file)
	}
	return append(b, "\n  }\n}\n"...)
}
