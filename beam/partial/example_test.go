package partial_test

import (
	"encoding/binary"
	"fmt"
	"log"
	"math"

	"github.com/modelavg/modelavg/beam/partial"
	"github.com/modelavg/modelavg/checkpoint"
)

// Two workers add what they have; a third one merges their sums and rounds.
func ExampleSum() {
	worker := func(models ...float32) []byte {
		s, err := partial.New(checkpoint.F32, partial.Accumulator(checkpoint.F32), 1)
		if err != nil {
			log.Fatal(err)
		}
		for _, x := range models {
			data := binary.LittleEndian.AppendUint32(nil, math.Float32bits(x))
			if err := s.Add(data, checkpoint.F32, 1); err != nil {
				log.Fatal(err)
			}
		}
		message, err := s.MarshalBinary()
		if err != nil {
			log.Fatal(err)
		}
		return message
	}

	var sum partial.Sum
	for _, message := range [][]byte{worker(1, 2), worker(6)} {
		var s partial.Sum
		if err := s.UnmarshalBinary(message); err != nil {
			log.Fatal(err)
		}
		if err := sum.Merge(&s); err != nil {
			log.Fatal(err)
		}
	}
	mean, err := sum.Mean()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(math.Float32frombits(binary.LittleEndian.Uint32(mean)), "of", sum.Models(), "models")
	// Output: 3 of 3 models
}
