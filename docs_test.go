package modelavg_test

import (
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/modelavg/modelavg"
	"github.com/modelavg/modelavg/weighting"
)

// Every row of every table of docs/exponential.md holds, to the last digit printed; a figure with a decimal point
// outside the tables is a decay that a table of its section uses, or one that the test knows.
func TestExponentialPage(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("docs", "exponential.md"))
	must(t, err)
	var (
		call    = regexp.MustCompile("^`(\\w+)\\((\\d+), ([\\d.]+)\\)`$")
		decimal = regexp.MustCompile(`\d+\.\d+`)
	)
	models := [][]float64{{1, 2, 3, 4}, {2, 3, 4, 5}, {3, 4, 5, 6}}
	vectors := map[string]func(int, float64) ([]float64, error){
		"Geometric":         weighting.Geometric,
		"EMA":               weighting.EMA,
		"ArticleRecurrence": weighting.ArticleRecurrence,
	}
	rows := map[string]int{}
	var header string
	var decays []string // of the prose
	for number, line := range strings.Split(string(page), "\n") {
		if !strings.HasPrefix(line, "|") {
			header = ""
			decays = append(decays, decimal.FindAllString(line, -1)...)
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if header == "" {
			header = strings.Join(cells, ", ")
			continue
		}
		if strings.HasPrefix(line, "|---") {
			continue
		}
		rows[header]++

		if header == "decay, the oldest model leads in lists of up to" {
			decay, err := strconv.ParseFloat(cells[0], 64)
			must(t, err)
			if want := fmt.Sprintf("%d models", oldestLeads(t, decay)); cells[1] != want {
				t.Errorf("line %d: got %q for decay %v, want %q", number+1, cells[1], decay, want)
			}
			continue
		}

		m := call.FindStringSubmatch(cells[0])
		if m == nil || vectors[m[1]] == nil {
			t.Errorf("line %d: %q is no weight vector", number+1, cells[0])
			continue
		}
		n, err := strconv.Atoi(m[2])
		must(t, err)
		decay, err := strconv.ParseFloat(m[3], 64)
		must(t, err)
		w, err := vectors[m[1]](n, decay)
		must(t, err)
		var figures []string
		var want []float64
		switch header {
		case "weights, oldest, middle, newest":
			figures, want = cells[1:], w
		case "weights, oldest, newest":
			figures, want = cells[1:], []float64{w[0], w[n-1]}
		case "weights, result":
			figures, want = strings.Fields(cells[1]), make([]float64, 4)
			must(t, modelavg.WeightedMean(want, models, w))
			if m[1] == "Geometric" { // the page says that this is what ExponentialMean computes
				exponential := make([]float64, 4)
				must(t, modelavg.ExponentialMean(exponential, models, decay))
				checkBits(t, "ExponentialMean", exponential, want)
			}
			// Below the table the page says which results lie beyond the middle model, whose first weight is 2.
			if beyond := want[0] > 2; beyond != (m[1] == "Geometric") {
				t.Errorf("line %d: %v is not where the page says", number+1, want[0])
			}
		default:
			t.Errorf("line %d: unknown table %q", number+1, header)
		}
		if len(figures) != len(want) {
			t.Errorf("line %d: %d figures, want %d", number+1, len(figures), len(want))
			continue
		}
		for i, f := range figures {
			digits := len(f) - strings.Index(f, ".") - 1
			if s := strconv.FormatFloat(want[i], 'f', digits, 64); f != s {
				t.Errorf("line %d: got %s, want %s", number+1, f, s)
			}
		}
	}
	for header, want := range map[string]int{
		"weights, oldest, middle, newest":                 9,
		"decay, the oldest model leads in lists of up to": 6,
		"weights, result":                                 3,
		"weights, oldest, newest":                         3,
	} {
		if rows[header] != want {
			t.Errorf("table %q: found %d rows, want %d", header, rows[header], want)
		}
	}
	if got, want := fmt.Sprint(decays), "[0.8 0.9 0.5 0.8 0.9]"; got != want {
		t.Errorf("the prose has the decimals %s, want %s, the decays of the tables", got, want)
	}
}

// oldestLeads returns the length of the longest list in which ArticleRecurrence gives the oldest model the most.
func oldestLeads(t *testing.T, decay float64) int {
	longest := 0
	for n := 1; n < 1000; n++ {
		w, err := weighting.ArticleRecurrence(n, decay)
		must(t, err)
		most := math.Inf(-1)
		for _, x := range w[1:] {
			most = max(most, x)
		}
		if w[0] > most {
			longest = n
		}
	}
	return longest
}

// The Go code of the README, as one function, compiles.
func TestREADMECompiles(t *testing.T) {
	page, err := os.ReadFile("README.md")
	must(t, err)
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	if len(blocks) < 2 {
		t.Fatalf("README.md has %d blocks of Go, want the 2 of its chapter on the library", len(blocks))
	}
	imports := regexp.MustCompile(`(?m)^import ".*"$`)
	var head, body strings.Builder
	for _, b := range blocks {
		head.WriteString(strings.Join(imports.FindAllString(b[1], -1), "\n"))
		body.WriteString(imports.ReplaceAllString(b[1], ""))
	}
	source := "package readme\n" + head.String() +
		"\nfunc _(models [][]float32, model []float32, n int, samples float64) {\n" + body.String() + "\n}\n"
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, "README.go", source, 0)
	must(t, err)
	conf := types.Config{
		Importer: importer.ForCompiler(fset, "source", nil),
		Error: func(err error) {
			if !strings.Contains(err.Error(), "declared and not used") {
				t.Errorf("%v\n%s", err, source)
			}
		},
	}
	_, _ = conf.Check("readme", fset, []*ast.File{file}, nil) // all errors go to conf.Error
}
