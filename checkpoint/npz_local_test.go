package checkpoint

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Whoever reads an archive from front to back finds the same arrays in it as who goes by its directory.
func TestLocalHeaders(t *testing.T) {
	array := string(npyFile("{'descr':'|u1','fortran_order':False,'shape':(2,)}", 2))
	member := func(name string, extra int) zip.FileHeader {
		h := zip.FileHeader{Name: name, Comment: array}
		if extra > 0 {
			h.Extra = binary.LittleEndian.AppendUint16([]byte("xx"), uint16(extra-4))
			h.Extra = append(h.Extra, bytes.Repeat([]byte("PK\x03\x04"), extra/4-1)...)
		}
		return h
	}
	archive := func(members ...zip.FileHeader) []byte { return zipFile(t, members...) }
	two := func() []byte { return archive(member("a.npy", 0), member("b.npy", 0)) }

	otherName := bytes.Replace(two(), []byte("b.npy"), []byte("c.npy"), 1)
	// The directory says of b, whose local header is that of a, the place of a.
	alias := two()
	place := bytes.LastIndex(alias, []byte("PK\x01\x02")) + 42
	binary.LittleEndian.PutUint32(alias[place:], 0)
	// The local header of b lies in the data of a, which has a copy of it.
	inner := archive(member("b.npy", 0))
	inner = inner[:bytes.Index(inner, []byte("PK\x01\x02"))]
	overlap := archive(
		zip.FileHeader{Name: "a.npy", Comment: string(npyFile("{'descr':'|u1','fortran_order':False,'shape':(200,)}", 0)) +
			string(inner) + strings.Repeat("x", 200-len(inner))},
		member("b.npy", 0))
	place = bytes.LastIndex(overlap, []byte("PK\x01\x02")) + 42
	binary.LittleEndian.PutUint32(overlap[place:], uint32(bytes.Index(overlap, inner)))

	const name = `: the header before its data has another name than the directory of the archive`
	for _, test := range []struct {
		file []byte
		want string // "" for a good one
	}{
		{two(), ""},
		{archive(member("a.npy", 60), member("b.npy", 64), member("c.npy", 68), member("d.npy", 60000)), ""},
		{archive(member(strings.Repeat("n", 60_000)+".npy", 0)), ""},
		{otherName, `a.npz: member "b.npy"` + name},
		{alias, `a.npz: member "b.npy"` + name},
		{overlap, `a.npz: member "b.npy": begins at byte `},
	} {
		path := filepath.Join(t.TempDir(), "a.npz")
		if err := os.WriteFile(path, test.file, 0o666); err != nil {
			t.Fatal(err)
		}
		m, err := Open(path)
		if err == nil {
			m.Close()
		}
		list := violationsIn(path)
		if test.want == "" {
			if err != nil || list != nil {
				t.Errorf("error %v, violations %q", err, list)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("error %v, want %s", err, test.want)
		}
		if len(list) != 1 || !strings.HasPrefix(list[0], test.want) {
			t.Errorf("violations %q, want %s", list, test.want)
		}
	}
}
