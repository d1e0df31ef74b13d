package merge

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"unsafe"

	"github.com/modelavg/modelavg/checkpoint"
)

// A recorder is an output that remembers where in the file every chunk was written, and how it lay in memory.
type recorder struct {
	*checkpoint.Writer
	mu     sync.Mutex
	writes []written
}

type written struct {
	tensor           string
	begin, end, size int64 // in the file; size of the tensor
	address          uintptr
}

func (r *recorder) WriteAt(name string, p []byte, off int64) (int, error) {
	begin, err := r.Offset(name)
	if err != nil {
		return 0, err
	}
	t, err := r.TensorWriter(name)
	if err != nil {
		return 0, err
	}
	r.mu.Lock()
	r.writes = append(r.writes, written{
		name, begin + off, begin + off + int64(len(p)), t.Size(),
		uintptr(unsafe.Pointer(unsafe.SliceData(p))),
	})
	r.mu.Unlock()
	return r.Writer.WriteAt(name, p, off)
}

// Chunks meet at whole pages of the file that is written, whatever is before the tensor, and averages lie in memory as
// they will in their page.
func TestWritesWholePages(t *testing.T) {
	const chunk = 2 * pageBytes
	dir := t.TempDir()
	tensors := []checkpoint.Tensor{
		{Name: "a", DType: checkpoint.BF16, Shape: []int64{12_345}},
		{Name: "b", DType: checkpoint.F32, Shape: []int64{10_000}},
		{Name: "c", DType: checkpoint.F64, Shape: []int64{5}},
		{Name: "d", DType: checkpoint.F16, Shape: []int64{40_000}},
	}
	models := make([]*checkpoint.Model, 2)
	for k := range models {
		path := filepath.Join(dir, fmt.Sprint(k))
		w, err := checkpoint.Create(path, tensors, nil, checkpoint.WithoutSync())
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		for _, x := range tensors {
			if _, err := w.WriteAt(x.Name, make([]byte, x.Bytes()), 0); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Commit(); err != nil {
			t.Fatal(err)
		}
		if models[k], err = checkpoint.Open(path); err != nil {
			t.Fatal(err)
		}
		defer models[k].Close()
	}
	p, err := Mean(models, WithChunkBytes(chunk), WithWorkers(2))
	if err != nil {
		t.Fatal(err)
	}
	w, err := checkpoint.Create(filepath.Join(dir, "out"), p.tensors(), nil, checkpoint.WithoutSync())
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	output := &recorder{Writer: w}
	for _, x := range p.Ranges(0) {
		if _, err := p.RunRange(t.Context(), x, output); err != nil {
			t.Fatal(err)
		}
	}
	var total, inside int64
	for _, x := range output.writes {
		begin, err := w.Offset(x.tensor)
		if err != nil {
			t.Fatal(err)
		}
		total += x.end - x.begin
		if x.begin > begin {
			inside++
			if x.begin%chunk != 0 {
				t.Errorf("tensor %s: a chunk begins at byte %d of the file, want a multiple of %d", x.tensor, x.begin, chunk)
			}
		}
		if got, want := int64(x.address)%pageBytes, x.begin%pageBytes; got != want {
			t.Errorf("tensor %s: byte %d of the file is at %d of a page in memory, want %d", x.tensor, x.begin, got, want)
		}
	}
	if total != p.BytesWritten || inside < 15 {
		t.Errorf("%d bytes written, want %d; %d chunks inside of tensors", total, p.BytesWritten, inside)
	}
	if err := w.Commit(); err != nil {
		t.Error(err)
	}
}

// A renamer writes tensors under other names. Its Offset, which is that of the writer in it, knows only those.
type renamer struct{ *checkpoint.Writer }

func (r renamer) WriteAt(name string, p []byte, off int64) (int, error) {
	return r.Writer.WriteAt("renamed."+name, p, off)
}

func TestRunRangeRenames(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a")
	tensor := checkpoint.Tensor{Name: "x", DType: checkpoint.F32, Shape: []int64{3}}
	data := []byte{0, 0, 128, 63, 0, 0, 0, 64, 0, 0, 64, 64}
	write := func(path string, tensor checkpoint.Tensor, fill func(w *checkpoint.Writer) error) {
		w, err := checkpoint.Create(path, []checkpoint.Tensor{tensor}, nil, checkpoint.WithoutSync())
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		if err := fill(w); err != nil {
			t.Fatal(err)
		}
		if err := w.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	write(path, tensor, func(w *checkpoint.Writer) error {
		_, err := w.WriteAt("x", data, 0)
		return err
	})
	m, err := checkpoint.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	p, err := Mean([]*checkpoint.Model{m})
	if err != nil {
		t.Fatal(err)
	}
	tensor.Name, path = "renamed.x", filepath.Join(dir, "out")
	write(path, tensor, func(w *checkpoint.Writer) error {
		_, err := p.RunRange(t.Context(), p.Ranges(0)[0], renamer{w})
		return err
	})
	out, err := checkpoint.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	got := make([]byte, len(data))
	if _, err := out.ReadAt("renamed.x", got, 0); err != nil || !bytes.Equal(got, data) {
		t.Errorf("got % x, %v; want % x", got, err, data)
	}
}

// The chunks of a piece are all its elements, each once, none longer than a buffer.
func TestChunksOfPiece(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 1))
	for range 10_000 {
		size := int64(1) << r.IntN(4)
		dtype := map[int64]checkpoint.DType{1: checkpoint.U8, 2: checkpoint.BF16, 4: checkpoint.F32, 8: checkpoint.F64}[size]
		width := max(size, 1<<r.IntN(4)) // of the widest model
		p := &Plan{
			Steps:      []Step{{Tensor: checkpoint.Tensor{Name: "x", DType: dtype}, width: int(width)}},
			ChunkBytes: []int{64, 4096, 8192, 3 * 4096, 4096 + 64}[r.IntN(5)],
		}
		x := piece{first: r.Int64N(100), elements: r.Int64N(20_000), offset: r.Int64N(100_000)}
		var next int64
		for i := range p.chunks(x) {
			first, n := p.chunk(x, i)
			if first != next || n <= 0 || n*width > int64(p.ChunkBytes) {
				t.Fatalf("%+v in chunks of %d bytes: chunk %d has %d elements from %d, want them from %d", x, p.ChunkBytes, i,
					n, first, next)
			}
			next += n
		}
		if next != x.elements {
			t.Fatalf("%+v in chunks of %d bytes: chunks of %d elements", x, p.ChunkBytes, next)
		}
	}
}
