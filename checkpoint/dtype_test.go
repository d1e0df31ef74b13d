package checkpoint

import (
	"encoding/json"
	"testing"
)

// The dtypes of the format: name, value in the order of its writer, bits of an element.
var dtypeTable = []struct {
	name  string
	dtype DType
	bits  int
	kind  string
}{
	{"BOOL", Bool, 8, "integer"},
	{"F4", F4, 4, ""},
	{"F6_E2M3", F6E2M3, 6, ""},
	{"F6_E3M2", F6E3M2, 6, ""},
	{"U8", U8, 8, "integer"},
	{"I8", I8, 8, "integer"},
	{"F8_E5M2", F8E5M2, 8, ""},
	{"F8_E4M3", F8E4M3, 8, ""},
	{"F8_E8M0", F8E8M0, 8, ""},
	{"F8_E4M3FNUZ", F8E4M3FNUZ, 8, ""},
	{"F8_E5M2FNUZ", F8E5M2FNUZ, 8, ""},
	{"I16", I16, 16, "integer"},
	{"U16", U16, 16, "integer"},
	{"F16", F16, 16, "float"},
	{"BF16", BF16, 16, "float"},
	{"I32", I32, 32, "integer"},
	{"U32", U32, 32, "integer"},
	{"F32", F32, 32, "float"},
	{"C64", C64, 64, ""},
	{"F64", F64, 64, "float"},
	{"I64", I64, 64, "integer"},
	{"U64", U64, 64, "integer"},
}

func TestDType(t *testing.T) {
	if len(dtypeTable) != 22 || int(lastDType) != 22 {
		t.Fatalf("%d dtypes in the table, %d in the package, want 22", len(dtypeTable), lastDType)
	}
	for i, test := range dtypeTable {
		d := test.dtype
		if int(d) != i+1 {
			t.Errorf("%s has value %d, want %d", test.name, d, i+1)
		}
		if d.String() != test.name {
			t.Errorf("String() = %s, want %s", d, test.name)
		}
		if d.Bits() != test.bits {
			t.Errorf("%v.Bits() = %d, want %d", d, d.Bits(), test.bits)
		}
		if d.IsFloat() != (test.kind == "float") || d.IsInteger() != (test.kind == "integer") {
			t.Errorf("%v: IsFloat %v, IsInteger %v, want it to be %q", d, d.IsFloat(), d.IsInteger(), test.kind)
		}
		if got, err := ParseDType(test.name); got != d || err != nil {
			t.Errorf("ParseDType(%s) = %v, %v", test.name, got, err)
		}
		text, err := json.Marshal(map[string]DType{"dtype": d})
		if want := `{"dtype":"` + test.name + `"}`; string(text) != want || err != nil {
			t.Errorf("JSON %s, %v, want %s", text, err, want)
		}
		var back map[string]DType
		if err := json.Unmarshal(text, &back); err != nil || back["dtype"] != d {
			t.Errorf("JSON %s gives %v, %v", text, back, err)
		}
	}
}

func TestDTypeInvalid(t *testing.T) {
	for _, d := range []DType{0, 23, 255} {
		if d.Valid() || d.Bits() != 0 || d.IsFloat() || d.IsInteger() {
			t.Errorf("%v passes as a dtype", d)
		}
		if _, err := d.MarshalText(); err == nil {
			t.Errorf("%v marshals", d)
		}
	}
	if got := DType(23).String(); got != "DType(23)" {
		t.Errorf("String() = %s, want DType(23)", got)
	}
	for _, name := range []string{"", "f32", "F32 ", "F8_E8M0FNU", "float32"} {
		d := F64
		err := d.UnmarshalText([]byte(name))
		if err == nil || d != F64 {
			t.Errorf("UnmarshalText(%q) gives %v, %v", name, d, err)
			continue
		}
		if want := `unknown dtype "` + name + `"`; err.Error() != want {
			t.Errorf("error %q, want %q", err, want)
		}
	}
}
