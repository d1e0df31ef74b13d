package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/modelavg/modelavg/internal/printable"
	"github.com/modelavg/modelavg/merge"
)

func newSoup() *cobra.Command {
	var (
		f        = averageFlags{noWeights: true}
		command  string
		minimize bool
		logPath  string
	)
	cmd := &cobra.Command{
		Use:                   "soup --eval 'COMMAND {}' -o OUT FILE...",
		DisableFlagsInUseLine: true,
		Short:                 "Write the mean of those models that make it better: a greedy soup",
		Long: `Soup looks for the models whose mean a command of yours scores best, and writes that mean. It follows the greedy soup
of Wortsman et al., "Model soups", 2022: the models are sorted by their own score; the best is the first ingredient;
each of the others, in that order, is added if the mean of all ingredients and it scores better than the mean without
it. Every mean is made from the files, in one pass and rounded once. Score on data that you do not need to judge the
result: the search fits the soup to it.

The command is run by sh -c (cmd /c on Windows) with the path of a model, quoted, in the place of every {}. Its score is
the last number that it prints to stdout, the higher the better, or the lower with --minimize; NaN is worse than any
other. A number is a word of its own, as in accuracy: 0.93 or loss=1e-3 (not in run1 or 2026-01-31). What it prints to
stderr is passed through. A command that fails ends the run. When the command has ended, what
it has left running is killed. A signal to modelavg that ends it goes to the command as SIGTERM, and as SIGKILL 50 ms
later to what is left of it.

With --log every score is added to a file, a line of JSON each, and scores that are in it are not asked for again, which
the report says: a run that was interrupted goes on where it was. A score is taken from the log only if command, flags,
and the names, sizes and times of modification of the files are the same. A log serves one run at a time, and nothing
but a log is written to.

The output has the names of its ingredients in its metadata, as soup.ingredients, and its score as soup.score. While
soup runs, the mean in question is in a directory of its own beside the output, and called mean.safetensors or, if it is
a directory itself, mean. Nothing that was there before is touched.`,
		Example: `  modelavg soup --eval 'python evaluate.py {}' -o soup.safetensors run1.safetensors run2.safetensors run3.safetensors
  modelavg soup --eval './evaluate {}' --log soup.log --minimize -o soup.safetensors run*.safetensors`,
		RunE: func(cmd *cobra.Command, files []string) error {
			if err := f.check(files); err != nil {
				return err
			}
			switch {
			case command == "":
				return errors.New("no command given: --eval 'COMMAND {}' is required")
			case !strings.Contains(command, placeholder):
				return fmt.Errorf("--eval %s: there is no {} for the path of the model", command)
			}
			if err := checkOutput("--log", logPath); err != nil {
				return err
			}
			opts, err := f.planOptions(files, nil)
			if err != nil {
				return err
			}
			s := &soup{
				files: files, read: f.readFlags, options: opts, output: f.output, maxShardSize: int64(f.maxShardSize),
				minimize: minimize,
				stdout:   cmd.OutOrStdout(), stderr: cmd.ErrOrStderr(), dtype: f.dtype.value,
				evaluate: func(ctx context.Context, path string) (float64, error) {
					return evaluate(ctx, command, path, cmd.ErrOrStderr())
				},
			}
			if f.json {
				s.stdout = io.Discard
			}
			if err := s.run(cmd.Context(), logPath, f.key(command)); err != nil {
				return &failure{err}
			}
			if f.json {
				return unreported(f.output, printJSON(cmd.OutOrStdout(), s.outcome()))
			}
			return nil
		},
	}
	f.register(cmd)
	flags := cmd.Flags()
	flags.StringVar(&command, "eval", "", "`COMMAND` that prints the score of the model {} (required)")
	flags.BoolVar(&minimize, "minimize", false, "the lower the score the better")
	flags.StringVar(&logPath, "log", "", "`FILE` with the scores, which is added to")
	_ = cmd.MarkFlagFilename("log")
	return cmd
}

// key returns what has to be the same for a score of the log to be used: the command, and the flags that change a mean.
func (f *averageFlags) key(command string) string {
	return fmt.Sprintf("%s; integers %s, keys %s, overflow %s, dtype %s, include %q, exclude %q", command,
		f.integers.value, f.keys.value, f.overflow.value, f.dtype.value, f.include, f.exclude)
}

// soupPrefix is what the metadata begin with that a soup has.
const soupPrefix = "soup."

// A soup is a run of the command.
type soup struct {
	files    []string
	inputs   [][]soupInput // of each of them
	read     readFlags
	options  []merge.Option
	output   string
	minimize bool

	dtype        string // the flag
	maxShardSize int64
	evaluate     func(ctx context.Context, path string) (float64, error)
	stdout       io.Writer
	stderr       io.Writer

	log    *scoreLog
	scores []float64 // of the files
	logged []bool    // whether these are from the log
	tried  []triedModel
	chosen []int   // the ingredients, ascending
	score  float64 // of their mean
	result result  // of the last mean
}

// run looks for the ingredients and writes their mean.
func (s *soup) run(ctx context.Context, logPath, key string) (err error) {
	if err := checkParent(s.output); err != nil {
		return err
	}
	if err := s.remember(); err != nil {
		return err
	}
	name, err := s.prepare()
	if err != nil {
		return err
	}
	others := append(slices.Clone(s.files), s.output)
	if s.log, err = openScoreLog(logPath, key, s.read, others); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.log.close()) }()

	scratch, err := openScratch(s.output)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := scratch.close(); closeErr != nil {
			fmt.Fprintf(s.stderr, "modelavg: a temporary directory is left behind: %s\n", printable.Text(closeErr.Error()))
		}
	}()
	candidate := scratch.path(name)
	if err := s.scoreFiles(ctx); err != nil {
		return err
	}
	order := make([]int, len(s.files))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int {
		switch {
		case s.better(s.scores[i], s.scores[j]):
			return -1
		case s.better(s.scores[j], s.scores[i]):
			return 1
		}
		return 0
	})
	s.chosen, s.score = order[:1:1], s.scores[order[0]]
	fmt.Fprintf(s.stdout, "start with %s: %v\n", printable.Name(s.files[order[0]]), s.score)
	for _, i := range order[1:] {
		with := append(slices.Clone(s.chosen), i)
		slices.Sort(with)
		score, logged, err := s.scoreSet(ctx, with, candidate)
		if err != nil {
			return err
		}
		verdict := "left out"
		if s.better(score, s.score) {
			verdict = "added"
			s.chosen, s.score = with, score
		}
		s.tried = append(s.tried, triedModel{s.files[i], number(score), logged, verdict == "added"})
		fmt.Fprintf(s.stdout, "with %s: %v%s, %s\n", printable.Name(s.files[i]), score, fromLog(logged), verdict)
	}
	return s.write(ctx)
}

// prepare finds what would end the run before anything is evaluated: that the models cannot be averaged, or the output
// cannot be written. It returns a name for the means in question: that of a directory if the output is one, and of a
// file with the usual extension otherwise.
func (s *soup) prepare() (string, error) {
	models, err := s.read.openAll(s.files)
	if err != nil {
		return "", err
	}
	defer models.close()
	layout := newLayout(models[0], s.output, s.maxShardSize)
	if err := checkTarget(s.output, &layout); err != nil {
		return "", err
	}
	plan, err := models.plan(nil, append(slices.Clone(s.options), merge.WithCreateOptions(layout.options...)))
	if err != nil {
		return "", listed(err)
	}
	if err := plan.Check(s.output); err != nil {
		return "", err
	}
	if layout.directory {
		return "mean", nil
	}
	return "mean.safetensors", nil
}

// fromLog marks a score that was not asked for.
func fromLog(logged bool) string {
	if logged {
		return " (from the log)"
	}
	return ""
}

// better reports whether score a is better than b.
func (s *soup) better(a, b float64) bool {
	switch {
	case math.IsNaN(a) || math.IsNaN(b):
		return !math.IsNaN(a)
	case s.minimize:
		return a < b
	}
	return a > b
}

// scoreFiles scores every file by itself.
func (s *soup) scoreFiles(ctx context.Context) error {
	for i, file := range s.files {
		score, logged, err := s.scored(ctx, []int{i}, func() (string, error) { return file, nil })
		if err != nil {
			return err
		}
		s.scores, s.logged = append(s.scores, score), append(s.logged, logged)
		fmt.Fprintf(s.stdout, "score of %s: %v%s\n", printable.Name(file), score, fromLog(logged))
	}
	return nil
}

// scoreSet scores the mean of the files, which it writes to path. Returns are those of scored.
func (s *soup) scoreSet(ctx context.Context, set []int, path string) (score float64, logged bool, err error) {
	return s.scored(ctx, set, func() (string, error) {
		_, err := s.mean(ctx, set, path, nil)
		return path, err
	})
}

// scored returns the score of the set of files: the one in the log, or that of the model which get returns; and which of
// the two it is.
func (s *soup) scored(ctx context.Context, set []int, get func() (path string, err error)) (score float64, logged bool,
	err error,
) {
	files := make([]string, len(set))
	for k, i := range set {
		files[k] = s.files[i]
	}
	entry, err := s.log.newEntry(files)
	if err != nil {
		return 0, false, err
	}
	if score, ok := s.log.find(entry); ok {
		return score, true, nil
	}
	path, err := get()
	if err != nil {
		return 0, false, err
	}
	score, err = s.evaluate(ctx, path)
	if err != nil {
		if ctx.Err() != nil {
			return 0, false, context.Cause(ctx)
		}
		return 0, false, fmt.Errorf("score of %s: %w", strings.Join(files, " + "), err)
	}
	if err := s.unchanged(set); err != nil {
		return 0, false, err
	}
	return score, false, s.log.add(entry, score)
}

// mean writes the mean of the files to path.
func (s *soup) mean(ctx context.Context, set []int, path string, metadata map[string]string) (result, error) {
	var files []string
	for _, i := range set {
		files = append(files, s.files[i])
	}
	models, err := s.read.openAll(files)
	if err != nil {
		return result{}, err
	}
	defer models.close()
	if err := s.unchanged(set); err != nil { // what changes from here on is not read, or noticed by the run
		return result{}, err
	}
	layout := newLayout(models[0], s.output, s.maxShardSize)
	plan, err := models.plan(nil, append(slices.Clone(s.options), merge.WithCreateOptions(layout.options...)))
	if err != nil {
		return result{}, listed(err)
	}
	if plan.Metadata == nil {
		plan.Metadata = make(map[string]string)
	}
	maps.Copy(plan.Metadata, metadata)
	r := result{Plan: plan, Layout: layout.text, Notes: layout.notes(plan, path, s.dtype)}
	if r.Report, err = runPlan(ctx, plan, path, s.stderr); err == nil {
		r.SideFiles, err = layout.copySideFiles(ctx, path, r.Report)
	}
	return r, err
}

// write writes the mean of the ingredients to the output.
func (s *soup) write(ctx context.Context) error {
	ingredients, err := json.Marshal(s.ingredients())
	if err != nil {
		return err
	}
	s.result, err = s.mean(ctx, s.chosen, s.output, map[string]string{
		soupPrefix + "ingredients": string(ingredients),
		soupPrefix + "score":       strconv.FormatFloat(s.score, 'g', -1, 64),
	})
	if err != nil {
		return err
	}
	names := s.ingredients()
	for i := range names {
		names[i] = printable.Name(names[i])
	}
	_, err = fmt.Fprintf(s.stdout, "%d of %d models: %s\nscore %v\n%s", len(s.chosen), len(s.files),
		strings.Join(names, " + "), s.score, s.result.text())
	return unreported(s.output, err)
}

// ingredients returns the chosen files.
func (s *soup) ingredients() []string {
	var files []string
	for _, i := range s.chosen {
		files = append(files, s.files[i])
	}
	return files
}

// A soupResult is what --json prints.
type soupResult struct {
	Scores      []fileScore  `json:"scores"`
	Tried       []triedModel `json:"tried"`
	Ingredients []string     `json:"ingredients"`
	Score       number       `json:"score"`
	result
}

// A triedModel is a model that was looked at as an ingredient, and the score of the mean with it.
type triedModel struct {
	Path  string `json:"path"`
	Score number `json:"score"`
	Log   bool   `json:"from_log"`
	Added bool   `json:"added"`
}

type fileScore struct {
	Path  string `json:"path"`
	Score number `json:"score"`
	Log   bool   `json:"from_log"`
}

func (s *soup) outcome() soupResult {
	r := soupResult{Tried: s.tried, Ingredients: s.ingredients(), Score: number(s.score), result: s.result}
	if r.Tried == nil {
		r.Tried = []triedModel{}
	}
	for i, file := range s.files {
		r.Scores = append(r.Scores, fileScore{file, number(s.scores[i]), s.logged[i]})
	}
	return r
}
