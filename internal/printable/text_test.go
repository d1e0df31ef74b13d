package printable

import "testing"

func TestText(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"", ""},
		{`tensor "a\n" of 'Größe 重み' \x`, `tensor "a\n" of 'Größe 重み' \x`},
		{"a\x1b[31mRED\x07\n: no", `a\x1b[31mRED\a\n: no`},
		{"right\u202eleft\u2028\u0085", `right\u202eleft\u2028\u0085`},
		{"\xff\ufffd\xc3", `\xff` + "\ufffd" + `\xc3`},
		{"a\tb\rc", `a\tb\rc`},
	} {
		if got := Text(test.text); got != test.want {
			t.Errorf("Text(%q) is %s, want %s", test.text, got, test.want)
		}
	}
}
