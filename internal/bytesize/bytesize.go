// Package bytesize reads numbers of bytes from command lines.
package bytesize

import (
	"errors"
	"math"
	"strconv"
	"strings"
)

// A Size is the value of a flag: a number of bytes, which may be given with a unit. Zero is that of a flag that was not
// given. It is a [flag.Value].
type Size int64

// units are powers of 1000, and of 1024 with an i in them.
var units = map[string]float64{
	"": 1, "B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12,
	"KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40,
}

// String returns the number of bytes, or nothing for zero.
func (s *Size) String() string {
	if *s == 0 {
		return ""
	}
	return strconv.FormatInt(int64(*s), 10)
}

// Type returns what stands for the value in the help of a flag.
func (s *Size) Type() string { return "SIZE" }

// Set reads a number, also with a fraction, and perhaps a unit, in upper or lower case: "5GB", "1.5 MiB", "100". The
// error says what is wanted; s is then as it was. A fraction of a byte is left out, and less than one byte is an error.
func (s *Size) Set(text string) error {
	number := strings.TrimRight(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
	unit, ok := units[strings.ToUpper(text[len(number):])]
	x, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if !ok || err != nil || !(x*unit >= 1 && x*unit < math.MaxInt64) {
		return errors.New("want a number of bytes such as 5GB or 500MiB")
	}
	*s = Size(x * unit)
	return nil
}
