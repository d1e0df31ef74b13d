package checkpoint

import (
	"errors"
	"testing"
)

// What is no safetensors file at all is called that.
func TestOpenOther(t *testing.T) {
	for content, want := range map[string]string{
		"Dear reader,\nthis is a letter.\n": "m.safetensors: header over the limit: 7018141078010291524 bytes in a file of 31, " +
			`limit 100000000; this is probably no safetensors file, it begins with the text "Dear rea"`,
		"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR": "m.safetensors: header over the limit: 727905341920923785 bytes in a file of 16, " +
			"limit 100000000; this is probably no safetensors file",
	} {
		path := writeFile(t, []byte(content))
		_, err := Open(path)
		wantError(t, err, path, want)
		if !errors.Is(err, ErrHeaderLimit) {
			t.Errorf("%v does not wrap ErrHeaderLimit", err)
		}
	}
}
