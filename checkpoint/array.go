package checkpoint

import "context"

// A fullReader fills p from an offset, as source.readFull does.
type fullReader interface {
	readFull(p []byte, off int64) (int, error)
}

// An array is data that has to be changed on its way: big-endian, in Fortran's order, or both. What it returns is
// little-endian and row-major.
type array struct {
	from   fullReader
	offset int64 // of the data in from
	width  int   // bytes of an element
	unit   int   // bytes of a number, half of the width in a complex one
	swap   bool
	shape  []int64 // of an array in Fortran's order, or nil
	band   *band   // for such an array
	ctx    context.Context
}

// stopped returns the cause if the context of the model is done.
func (a *array) stopped() error {
	if a.ctx != nil && a.ctx.Err() != nil {
		return context.Cause(a.ctx)
	}
	return nil
}

// readAt fills p from byte off of the data.
func (a *array) readAt(p []byte, off int64) (int, error) {
	width := int64(a.width)
	var n int
	for n < len(p) {
		first, skip := (off+int64(n))/width, (off+int64(n))%width
		rest := p[n:]
		if skip == 0 && len(rest) >= a.width {
			whole := rest[:len(rest)/a.width*a.width]
			if err := a.elements(whole, first); err != nil {
				return n, err
			}
			n += len(whole)
			continue
		}
		// A part of an element, at the beginning or at the end.
		var buf [16]byte
		if err := a.elements(buf[:a.width], first); err != nil {
			return n, err
		}
		n += copy(rest, buf[skip:a.width])
	}
	return n, nil
}

// elements fills p with whole elements from the first on.
func (a *array) elements(p []byte, first int64) error {
	var err error
	if a.shape == nil {
		_, err = a.from.readFull(p, a.offset+first*int64(a.width))
	} else {
		err = a.transpose(p, first)
	}
	if err == nil && a.swap {
		swapBytes(p, a.unit)
	}
	return err
}

// swapBytes turns the bytes of every number of so many bytes around.
func swapBytes(p []byte, unit int) {
	for ; len(p) >= unit; p = p[unit:] {
		for i, j := 0, unit-1; i < j; i, j = i+1, j-1 {
			p[i], p[j] = p[j], p[i]
		}
	}
}

// Of an array in Fortran's order, runs of bytes that are far apart are read one by one. If the gaps are smaller than
// what could be read in the time that a read takes to begin, they are read too.
const (
	maxGap     = 8 << 10
	windowSize = 128 << 10
)

// transpose fills p with elements in the order of C.
func (a *array) transpose(p []byte, first int64) error {
	left, err := a.band.read(a, p, first)
	if left == 0 || err != nil {
		return err
	}
	first += int64((len(p) - left) / a.width)
	p = p[len(p)-left:]
	g := &gather{array: a, p: p, first: first, window: make([]byte, min(windowSize, max(int64(len(p)), maxGap)))}
	n := len(a.shape)
	g.rowStride, g.fileStride = make([]int64, n), make([]int64, n)
	for i, stride := n-1, int64(1); i >= 0; i-- {
		g.rowStride[i] = stride
		stride *= a.shape[i]
	}
	g.total = 1
	for i, d := range a.shape {
		g.fileStride[i] = g.total
		g.total *= d
	}
	return g.split(make([]int64, n), make([]int64, n), 0, first, first+int64(len(p)/a.width), 0)
}

// A gather is one call of transpose.
type gather struct {
	*array
	p          []byte
	first      int64 // the element, in the order of C, that p begins with
	rowStride  []int64
	fileStride []int64
	total      int64

	window []byte // a part of the file
	begin  int64  // the element in the file that it begins with
	filled int    // elements in it
}

// split divides the elements from begin up to end, in the order of C, into boxes: ranges of indices in every dimension.
// The indices before dimension dim are given, base is the first element that has them.
func (g *gather) split(lo, hi []int64, dim int, begin, end, base int64) error {
	for begin < end {
		stride := g.rowStride[dim]
		i := (begin - base) / stride
		start := base + i*stride
		lo[dim], hi[dim] = i, i+1
		if begin > start || end < start+stride {
			// Some of the elements of index i: the next dimension divides them.
			stop := min(end, start+stride)
			if err := g.split(lo, hi, dim+1, begin, stop, start); err != nil {
				return err
			}
			begin = stop
			continue
		}
		hi[dim] = (end - base) / stride
		for k := dim + 1; k < len(lo); k++ {
			lo[k], hi[k] = 0, g.shape[k]
		}
		if err := g.box(lo, hi); err != nil {
			return err
		}
		begin = base + hi[dim]*stride
	}
	return nil
}

// box reads the elements of a box, in the order of the file: runs along the first dimension.
func (g *gather) box(lo, hi []int64) error {
	index := append([]int64(nil), lo...)
	for {
		var file, row int64
		for k, i := range index {
			file += i * g.fileStride[k]
			row += i * g.rowStride[k]
		}
		if err := g.run(file, row, hi[0]-lo[0]); err != nil {
			return err
		}
		k := 1
		for ; k < len(index); k++ {
			if index[k]++; index[k] < hi[k] {
				break
			}
			index[k] = lo[k]
		}
		if k == len(index) {
			return nil
		}
	}
}

// run reads n elements that follow each other in the file, and puts them where they belong.
func (g *gather) run(file, row, n int64) error {
	width := int64(g.width)
	for n > 0 {
		if err := g.stopped(); err != nil {
			return err
		}
		if file < g.begin || file >= g.begin+int64(g.filled) {
			count := n
			if (g.shape[0]-n)*width < maxGap {
				count = int64(len(g.window))
			}
			count = min(count, int64(len(g.window))/width, g.total-file)
			g.filled = 0
			if _, err := g.from.readFull(g.window[:count*width], g.offset+file*width); err != nil {
				return err
			}
			g.begin, g.filled = file, int(count)
		}
		m := min(n, g.begin+int64(g.filled)-file)
		src := g.window[(file-g.begin)*width:]
		dst := (row - g.first) * width
		for i := range m {
			copy(g.p[dst:dst+width], src[i*width:(i+1)*width])
			dst += g.rowStride[0] * width
		}
		file, row, n = file+m, row+m*g.rowStride[0], n-m
	}
	return nil
}
