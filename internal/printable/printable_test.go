package printable

import "testing"

func TestName(t *testing.T) {
	for _, test := range []struct{ name, want string }{
		{"model.layers.0.weight", "model.layers.0.weight"},
		{"Gewichtsmatrix Größe 重み", "Gewichtsmatrix Größe 重み"},
		{"", `""`},
		{"a\x1b[31mRED\x07\n", `"a\x1b[31mRED\a\n"`},
		{"right\u202eleft", `"right\u202eleft"`},
		{"\xff", `"\xff"`},
	} {
		if got := Name(test.name); got != test.want {
			t.Errorf("Name(%q) is %s, want %s", test.name, got, test.want)
		}
	}
}
