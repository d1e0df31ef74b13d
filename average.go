// Package modelavg averages the weights of machine-learning models.
package modelavg

type Float16 uint16
type BFloat16 uint16
type Element interface {
	float32 | float64 | Float16 | BFloat16
}
