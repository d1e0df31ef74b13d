package merge

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
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

// writeZeros writes a model of zeros.
func writeZeros(t testing.TB, path string, tensors []checkpoint.Tensor, metadata map[string]string) {
	t.Helper()
	w, err := checkpoint.Create(path, tensors, metadata, checkpoint.WithoutSync())
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
		writeZeros(t, path, tensors, nil)
		var err error
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

// A reader is an input that checks how what is read lies in memory, and remembers where that was.
type reader struct {
	*checkpoint.Model
	t     *testing.T
	reads map[uintptr]int64 // from the address to the offset in the file
}

func (r reader) ReadAt(name string, p []byte, off int64) (int, error) {
	begin, err := r.Offset(name)
	if err != nil {
		return 0, err
	}
	address := uintptr(unsafe.Pointer(unsafe.SliceData(p)))
	r.reads[address] = begin + off
	if behind := (int64(address) - begin - off) & (pageBytes - 1); 0 < behind && behind < 64 {
		r.t.Errorf("%s: tensor %s: what is read from byte %d of the file lies %d bytes behind that place in its page",
			r.Path(), name, begin+off, behind)
	}
	return r.Model.ReadAt(name, p, off)
}

// However long the headers are, no chunk is read or written where the system is slow, and averages are aligned.
func TestPlacesInPages(t *testing.T) {
	dir := t.TempDir()
	tensors := []checkpoint.Tensor{
		{Name: "a", DType: checkpoint.BF16, Shape: []int64{12_345}},
		{Name: "b", DType: checkpoint.U8, Shape: []int64{10_001}},
		{Name: "c", DType: checkpoint.F32, Shape: []int64{10_000}},
	}
	var paths []string
	for _, length := range []int{0, 8, 16, 40, 48, 64, 72, 100, 1000} { // of the header more than of the first
		path := filepath.Join(dir, fmt.Sprint(length))
		writeZeros(t, path, tensors, map[string]string{"x": strings.Repeat("x", length)})
		paths = append(paths, path)
	}
	for _, policy := range []IntegerPolicy{IntegersFirst, IntegersLast, IntegersError, IntegersMax} {
		for i := range paths {
			for k := range paths {
				models := make([]*checkpoint.Model, 2)
				reads := map[uintptr]int64{}
				for j, path := range []string{paths[i], paths[k]} {
					var err error
					if models[j], err = checkpoint.Open(path); err != nil {
						t.Fatal(err)
					}
				}
				p, err := Mean(models, WithChunkBytes(2*pageBytes), WithWorkers(1), WithIntegers(policy))
				if err != nil {
					t.Fatal(err)
				}
				w, err := checkpoint.Create(filepath.Join(dir, "out"), p.tensors(), p.Metadata, checkpoint.WithoutSync())
				if err != nil {
					t.Fatal(err)
				}
				output := &recorder{Writer: w}
				r := p.newRun(output, nil)
				for j := range models {
					r.inputs[j] = reader{models[j], t, reads}
				}
				if err := r.do(t.Context()); err != nil {
					t.Fatal(err)
				}
				for _, x := range output.writes {
					if behind := (x.begin - int64(x.address)) & (pageBytes - 1); 0 < behind && behind < 64 {
						t.Errorf("%s of %s and %s: tensor %s: what is written to byte %d of the file lies %d bytes before that place "+
							"in its page", policy, paths[i], paths[k], x.tensor, x.begin, behind)
					}
				}
				for address := range reads {
					if address%alignment != 0 && policy == IntegersMax {
						t.Errorf("a chunk of an average lies at %#x", address)
					}
				}
				w.Close()
				for _, m := range models {
					m.Close()
				}
			}
		}
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

// What is read lies in memory as many bytes behind its place in the page of the file.
func BenchmarkReadPlace(b *testing.B) {
	const size, chunk = 2 << 20, 512 << 10
	path := filepath.Join(b.TempDir(), "model")
	writeZeros(b, path, []checkpoint.Tensor{{Name: "a", DType: checkpoint.U8, Shape: []int64{size}}}, nil)
	m, err := checkpoint.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	begin, err := m.Offset("a")
	if err != nil {
		b.Fatal(err)
	}
	memory := make([]byte, chunk+2*pageBytes)
	for _, behind := range []int64{0, 8, 32, 64, 2048} {
		b.Run(fmt.Sprintf("behind=%d", behind), func(b *testing.B) {
			address := int64(uintptr(unsafe.Pointer(unsafe.SliceData(memory))))
			p := memory[(begin+behind-address)&(pageBytes-1):][:chunk]
			b.SetBytes(size)
			for b.Loop() {
				for off := int64(0); off < size; off += chunk {
					if _, err := m.ReadAt("a", p, off); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
