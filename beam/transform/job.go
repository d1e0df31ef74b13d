// Package transform averages model files in pipelines of Apache Beam, on any engine that runs them.
//
// [Average] is the whole: it makes the plan, runs a pipeline and puts the result in its place. The output is divided
// into parts (package checkpoint), which are what the pipeline works on.
//
// # By reference
//
// Storage that all workers see is the usual case, and then no weights have to pass through the engine. With
// [ByReference], all that does is the number of each part, reshuffled so that the workers share them. A worker opens
// the models once, averages the ranges of tensors that are the part, and writes them where they belong in the
// unfinished output. The models are taken in their order, so that the result has the bytes that [merge.Plan.Run] writes
// on one machine.
//
// # By sums
//
// With [BySums], which Job.SumModels asks for, no worker reads more than a few models for the same elements. It adds
// those up in the accumulator format, the sums (package partial) go through the engine, which merges them by key, and
// are rounded once. The engine chooses the order in which it merges, so that bits may differ from those of
// [ByReference], by as much as package partial says. [AverageSums] does that part for sums of any origin.
//
// # Failures
//
// Engines run a bundle of elements again when a worker fails, and some run one twice at once. That is harmless here: a
// part that is done again has the same bytes at the same place, and what a lost worker writes late goes into a file
// that holds these bytes already, or that has no name any more. What is summed is regrouped, and so fixed by the
// engine, before it is written. The output appears whole or not at all.
package transform

import (
	"errors"
	"path/filepath"
	"strings"

	"github.com/modelavg/modelavg/checkpoint"
	"github.com/modelavg/modelavg/merge"
	"github.com/modelavg/modelavg/weighting"
)

// A Job says what is averaged, and how: what every worker has to know. All paths are as the workers see them.
type Job struct {
	Models  []string  // paths, as checkpoint.Open takes them
	Weights []float64 // one for each model, with the sum 1; nil for the mean
	Output  string    // path of the result

	// The policies of package merge; empty for its defaults, which is what BySums needs for NonFinite and Overflow.
	Integers  merge.IntegerPolicy
	Keys      merge.KeyPolicy
	NonFinite merge.NonFinitePolicy
	Overflow  merge.OverflowPolicy
	DType     string // name of the dtype of all averaged tensors

	Workers      int   // goroutines that work on a part; 0 for as many as keep all processors of a worker busy
	SumModels    int   // models in each sum, to average by sums; 0 to average by reference
	Parts        int   // of the output; 0 for as many as PartBytes makes
	MaxShardSize int64 // bytes of a shard, for a directory; 0 for one file, or the shards of the first model

	ID string // of this run; Average sets it
}

// PartBytes is how large the parts of an output are unless Job.Parts says how many there are: large enough that opening
// and flushing files is little of the work, small enough that a worker that is lost loses little.
const PartBytes = 256 << 20

// options returns the options of the plan.
func (j *Job) options(first *checkpoint.Model) ([]merge.Option, error) {
	options := []merge.Option{
		merge.WithIntegers(j.Integers), merge.WithKeys(j.Keys), merge.WithNonFinite(j.NonFinite),
		merge.WithOverflow(j.Overflow), merge.WithWorkers(j.Workers),
		merge.WithCreateOptions(j.create(first)...),
	}
	if j.DType != "" {
		d, err := checkpoint.ParseDType(j.DType)
		if err != nil {
			return nil, err
		}
		options = append(options, merge.WithDType(d))
	}
	return options, nil
}

// create returns how the output is divided into files: shards of a size, those of the first model if that is a
// directory and the output has not the name of a file, or one file.
func (j *Job) create(first *checkpoint.Model) []checkpoint.CreateOption {
	switch {
	case j.MaxShardSize > 0:
		return []checkpoint.CreateOption{checkpoint.WithMaxShardSize(j.MaxShardSize)}
	case first.Dir() != "" && !strings.EqualFold(filepath.Ext(j.Output), ".safetensors"):
		return []checkpoint.CreateOption{checkpoint.WithShards(first.Shards())}
	}
	return nil
}

// open opens the models and makes the plan. The models have to be closed.
func (j *Job) open() (*merge.Plan, []*checkpoint.Model, error) {
	models := make([]*checkpoint.Model, 0, len(j.Models))
	plan, err := j.plan(&models)
	if err != nil {
		return nil, nil, errors.Join(err, closeAll(models))
	}
	return plan, models, nil
}

// plan makes the plan and appends what it opens to models.
func (j *Job) plan(models *[]*checkpoint.Model) (*merge.Plan, error) {
	if len(j.Models) == 0 {
		return nil, weighting.ErrNoModels
	}
	for _, path := range j.Models {
		m, err := checkpoint.Open(path)
		if err != nil {
			return nil, err
		}
		*models = append(*models, m)
	}
	options, err := j.options((*models)[0])
	if err != nil {
		return nil, err
	}
	if j.Weights == nil {
		return merge.Mean(*models, options...)
	}
	return merge.WeightedMean(*models, j.Weights, options...)
}

func closeAll(models []*checkpoint.Model) error {
	var errs []error
	for _, m := range models {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}
