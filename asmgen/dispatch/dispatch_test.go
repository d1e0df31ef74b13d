package dispatch

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/modelavg/modelavg/internal/implementation"
)

// TestRegenerate fails when the committed assembly is not what is written here: run "go generate ./kernel".
func TestRegenerate(t *testing.T) {
	for _, file := range []struct {
		name     string
		generate func() ([]byte, error)
	}{
		{"../../kernel/dispatch_amd64.s", AMD64},
		{"../../kernel/dispatch_arm64.s", ARM64},
	} {
		got, err := file.generate()
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(file.name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s differs from what is written here: run \"go generate ./kernel\"", file.name)
		}
	}
}

// The number of a kernel that package kernel computes is that of the table's entry.
func TestOrder(t *testing.T) {
	if len(kinds) != implementation.Kinds {
		t.Fatalf("%d kinds, want %d", len(kinds), implementation.Kinds)
	}
	for i, name := range kinds {
		if kind := implementation.Kind(i).String(); kind != strings.ToLower(name) {
			t.Errorf("kind %d is %s, want %s", i, name, kind)
		}
	}
	if implementation.AVX512 != implementation.AVX2+1 {
		t.Errorf("AVX-512 is implementation %d, want the one after AVX2, which is %d", implementation.AVX512, implementation.AVX2)
	}
}
