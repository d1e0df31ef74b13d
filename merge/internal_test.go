package merge

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"github.com/modelavg/modelavg/checkpoint"
)

func TestReverse(t *testing.T) {
	for _, test := range []struct {
		size int
		want []byte
	}{
		{2, []byte{2, 1, 4, 3, 6, 5, 8, 7}},
		{4, []byte{4, 3, 2, 1, 8, 7, 6, 5}},
		{8, []byte{8, 7, 6, 5, 4, 3, 2, 1}},
	} {
		p := []byte{1, 2, 3, 4, 5, 6, 7, 8}
		if reverse(p, test.size); !bytes.Equal(p, test.want) {
			t.Errorf("size %d: got %v, want %v", test.size, p, test.want)
		}
	}
}

// On a machine taken for one of the other byte order, elements are reversed on the way in and out, or not reversed where
// they should be: in both cases big-endian elements give the average in big-endian.
func TestAverageOtherByteOrder(t *testing.T) {
	defer func(was bool) { littleEndian = was }(littleEndian)
	littleEndian = !littleEndian
	b := newBuffer(2, 64, false)
	s := &Step{Tensor: checkpoint.Tensor{DType: checkpoint.F32}, Action: Average, Sources: []int{0, 1}, width: 4}
	binary.BigEndian.PutUint32(b.data[0], 0x3f800000) // 1
	binary.BigEndian.PutUint32(b.data[1], 0x40400000) // 3
	if err := b.average(s, 1); err != nil {
		t.Fatal(err)
	}
	if x := binary.BigEndian.Uint32(b.out); x != 0x40000000 {
		t.Errorf("got %#x, want %#x", x, 0x40000000)
	}
}

// A model is closed if what is written to a path may replace a file of it.
func TestCloseReplaced(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	if err := os.Mkdir(file("d"), 0o777); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file("a"), file("b"), file("d/model.safetensors")} {
		faultModel(t, path)
	}
	for target, want := range map[string][3]bool{
		"a": {true, false, false}, "none": {}, "d": {false, false, true}, ".": {true, true, false},
	} {
		var models []*checkpoint.Model
		for _, path := range []string{file("a"), file("b"), file("d")} {
			m, err := checkpoint.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			models = append(models, m)
		}
		(&Plan{models: models}).closeReplaced(file(target))
		for k, m := range models {
			_, err := m.ReadAt("n", make([]byte, 8), 0)
			if closed := err != nil; closed != want[k] {
				t.Errorf("target %s: model %d is closed: %v, want %v", target, k, closed, want[k])
			}
		}
	}
}

func TestAlignedBytes(t *testing.T) {
	for n := 1; n < 300; n++ {
		p := alignedBytes(n, alignment)
		if len(p) != n || cap(p) != n || uintptr(unsafe.Pointer(&p[0]))%alignment != 0 {
			t.Fatalf("%d bytes: length %d, capacity %d, address %p", n, len(p), cap(p), &p[0])
		}
	}
}

// One element that is not finite is found anywhere.
func TestAllFinite(t *testing.T) {
	special := map[checkpoint.DType][][]byte{
		checkpoint.F64:    {{0, 0, 0, 0, 0, 0, 0xf0, 0x7f}, {1, 0, 0, 0, 0, 0, 0xf0, 0xff}},
		checkpoint.F32:    {{0, 0, 0x80, 0xff}, {1, 0, 0x80, 0x7f}, {0, 0, 0xc0, 0x7f}},
		checkpoint.F16:    {{0, 0x7c}, {0, 0xfe}, {1, 0x7c}},
		checkpoint.BF16:   {{0x80, 0x7f}, {0x80, 0xff}, {0xc0, 0x7f}, {0x81, 0x7f}},
		checkpoint.F8E4M3: {{0x7f}, {0xff}},
		checkpoint.F8E5M2: {{0x7c}, {0xfd}},
	}
	for d, list := range special {
		size := d.Bits() / 8
		const n = 5000
		p := alignedBytes(n*size, alignment)
		for i := 0; i < len(p); i += size { // the largest finite numbers, of both signs
			copy(p[i:], list[0])
			p[i+size-1] ^= byte(i/size%2) << 7
			q := i
			for ; p[q] == 0; q++ {
				p[q] = 0xff
			}
			p[q]--
		}
		for _, length := range []int{0, 1, n - 6, n - 5, n - 1, n} {
			if !allFinite(p[:length*size], d) {
				t.Errorf("%v: %d finite elements are not", d, length)
			}
		}
		for at := 0; at < n; at += 251 {
			for _, i := range []int{at, max(at-1, 0), n - 1} {
				for _, x := range list {
					saved := bytes.Clone(p[i*size:][:size])
					copy(p[i*size:], x)
					if allFinite(p, d) {
						t.Errorf("%v: % x at %d is finite", d, x, i)
					}
					copy(p[i*size:], saved)
				}
			}
		}
	}
}

func BenchmarkAllFinite(b *testing.B) {
	p := alignedBytes(1<<20, alignment)
	for _, d := range []checkpoint.DType{checkpoint.BF16, checkpoint.F16, checkpoint.F32, checkpoint.F64} {
		b.Run(d.String(), func(b *testing.B) {
			b.SetBytes(int64(len(p)))
			for b.Loop() {
				allFinite(p, d)
			}
		})
	}
}

func TestFormatBytes(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 999: "999 B", 1000: "1 kB", 1234: "1.23 kB", 999_400: "999 kB", 999_600: "1 MB",
		2 << 30: "2.15 GB", 1 << 62: "4.61 EB",
	} {
		if got := formatBytes(n); got != want {
			t.Errorf("formatBytes(%d) = %q, want %q", n, got, want)
		}
	}
}
