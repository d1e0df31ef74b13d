package transform

import (
	"reflect"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"

	"github.com/modelavg/modelavg/beam/partial"
)

func init() {
	beam.RegisterCoder(reflect.TypeFor[*partial.Sum](), encodeSum, decodeSum)
	register.Combiner3[*partial.Sum, *partial.Sum, []byte](new(averageFn))
}

// encodeSum and decodeSum are the coder of sums.
func encodeSum(s *partial.Sum) ([]byte, error) { return s.MarshalBinary() }

func decodeSum(p []byte) (*partial.Sum, error) {
	s := new(partial.Sum)
	return s, s.UnmarshalBinary(p)
}

// AverageSums merges the sums of every key, divides and rounds them. Sums is a PCollection<KV<K, *partial.Sum>>, for
// any key that has a deterministic coder; all sums of one key are of the same elements, in the same format. The result
// is a PCollection<KV<K, []byte>> of little-endian elements of the sums' dtype.
//
// If mean is set, sums are divided by the weight they have in all, as [partial.Sum.Mean] does it; otherwise they are
// only rounded, which is right for weights that sum to one.
//
// The engine chooses the order in which sums are merged, and with it the last bits of the accumulators: see package
// partial. It may also merge some of them before they are sent to another worker.
func AverageSums(s beam.Scope, mean bool, sums beam.PCollection) beam.PCollection {
	return beam.CombinePerKey(s.Scope("modelavg.AverageSums"), &averageFn{Mean: mean}, sums)
}

// averageFn merges sums and rounds what comes out.
type averageFn struct {
	Mean bool // divide by the weight
}

// CreateAccumulator returns the empty sum.
func (*averageFn) CreateAccumulator() *partial.Sum { return new(partial.Sum) }

// AddInput adds a sum to another, which it returns.
func (*averageFn) AddInput(sum, input *partial.Sum) (*partial.Sum, error) {
	return sum, sum.Merge(input)
}

// MergeAccumulators adds a sum to another, which it returns.
func (*averageFn) MergeAccumulators(sum, other *partial.Sum) (*partial.Sum, error) {
	return sum, sum.Merge(other)
}

// ExtractOutput returns the average.
func (f *averageFn) ExtractOutput(sum *partial.Sum) ([]byte, error) {
	if f.Mean {
		return sum.Mean()
	}
	return sum.Round(1)
}
