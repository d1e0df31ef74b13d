package main

import (
	"encoding/binary"
	"fmt"
	"math"
	"path/filepath"
	"slices"

	"github.com/modelavg/modelavg/checkpoint"
)

// checkpointPath returns the path of checkpoint k, counted from 1, the oldest.
func checkpointPath(dir string, k int) string {
	return filepath.Join(dir, fmt.Sprintf("checkpoint-%02d.safetensors", k))
}

// movingAveragePath returns the path of the moving average over the training.
func movingAveragePath(dir string) string { return filepath.Join(dir, "moving-average.safetensors") }

// save writes the network to a safetensors file with the names that a PyTorch state dict would have.
func (n *network) save(path string) error {
	steps := checkpoint.Tensor{Name: "steps", DType: checkpoint.I64}
	tensors := []checkpoint.Tensor{steps}
	for _, p := range n.parameters() {
		tensors = append(tensors, checkpoint.Tensor{Name: p.name, DType: checkpoint.F32, Shape: p.shape})
	}
	w, err := checkpoint.Create(path, tensors, map[string]string{"format": "pt"})
	if err != nil {
		return err
	}
	defer w.Close()
	for _, p := range n.parameters() {
		var b []byte
		for _, v := range p.values {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
		}
		if _, err := w.WriteAt(p.name, b, 0); err != nil {
			return err
		}
	}
	if _, err := w.WriteAt(steps.Name, binary.LittleEndian.AppendUint64(nil, uint64(n.steps)), 0); err != nil {
		return err
	}
	return w.Commit()
}

// load reads a network from a safetensors file that [network.save] or modelavg wrote.
func load(path string) (*network, error) {
	m, err := checkpoint.Open(path)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	n := newNetwork()
	for _, p := range n.parameters() {
		b, err := read(m, checkpoint.Tensor{Name: p.name, DType: checkpoint.F32, Shape: p.shape}, 4*len(p.values))
		if err != nil {
			return nil, err
		}
		for i := range p.values {
			p.values[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
		}
	}
	b, err := read(m, checkpoint.Tensor{Name: "steps", DType: checkpoint.I64}, 8)
	if err != nil {
		return nil, err
	}
	n.steps = int64(binary.LittleEndian.Uint64(b))
	return n, nil
}

// read returns the bytes of a tensor that must be in the model just as want says.
func read(m *checkpoint.Model, want checkpoint.Tensor, size int) ([]byte, error) {
	got, ok := m.Tensor(want.Name)
	if !ok {
		return nil, fmt.Errorf("%s: no tensor %q: not a network of this example", m.Path(), want.Name)
	}
	if got.DType != want.DType || !slices.Equal(got.Shape, want.Shape) {
		return nil, fmt.Errorf("%s: tensor %q is %v %v, want %v %v",
			m.Path(), want.Name, got.DType, got.Shape, want.DType, want.Shape)
	}
	b := make([]byte, size)
	_, err := m.ReadAt(want.Name, b, 0)
	return b, err
}
