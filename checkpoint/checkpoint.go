// Package checkpoint opens, lists, reads and writes model files.
package checkpoint

import "context"

// A Tensor describes one tensor of a model: what it is called and what its bytes mean.
type Tensor struct {
	Name  string
	DType DType
	Shape []int64 // row-major; empty for a scalar
}

// A Model is a model file opened for reading.
type Model struct{}

func Open(path string, opts ...OpenOption) (*Model, error) { panic("todo") }

type OpenOption struct{}

func WithHeaderLimit(bytes int64) OpenOption { panic("todo") }

func (m *Model) Path() string                                          { panic("todo") }
func (m *Model) Tensors() []Tensor                                     { panic("todo") } // sorted by name
func (m *Model) Tensor(name string) (Tensor, bool)                     { panic("todo") }
func (m *Model) Metadata() map[string]string                           { panic("todo") }
func (m *Model) ReadAt(name string, p []byte, off int64) (int, error)  { panic("todo") }
func (m *Model) Close() error                                          { panic("todo") }

type Writer struct{}

func Create(path string, tensors []Tensor, metadata map[string]string) (*Writer, error) { panic("todo") }
func (w *Writer) WriteAt(name string, p []byte, off int64) (int, error)                 { panic("todo") }
func (w *Writer) Commit() error                                                         { panic("todo") }
func (w *Writer) Close() error                                                          { panic("todo") } // without Commit: removes

var _ = context.Background
