package transform

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/modelavg/modelavg/checkpoint"
	"github.com/modelavg/modelavg/merge"
)

// opened holds what a worker has open of a job. Everything is opened when it is first asked for, and once.
type opened struct {
	job  Job
	end  context.Context // done when the job has ended in this process
	stop context.CancelCauseFunc

	mu     sync.Mutex
	plan   *merge.Plan
	all    []*checkpoint.Model // those of the plan
	models []*checkpoint.Model // opened without the plan; nil where they are not
}

// jobs holds what this process has open, by the JSON of the job.
var jobs = newCache(openJob, func(o *opened) { o.stop(errEnded) }, (*opened).close)

// openJob returns the job with nothing opened yet.
func openJob(key string) (*opened, error) {
	o := new(opened)
	if err := json.Unmarshal([]byte(key), &o.job); err != nil {
		return nil, err
	}
	o.end, o.stop = context.WithCancelCause(context.Background())
	o.models = make([]*checkpoint.Model, len(o.job.Models))
	return o, nil
}

// key returns what the job is found by.
func (j *Job) key() (string, error) {
	text, err := json.Marshal(j)
	return string(text), err
}

// use calls work with what is open of the job. The context is done when that of the caller is, and when the job ends.
func (j *Job) use(ctx context.Context, work func(context.Context, *opened) error) (err error) {
	key, err := j.key()
	if err != nil {
		return err
	}
	o, release, err := jobs.acquire(key)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	defer context.AfterFunc(o.end, func() { stop(errEnded) })()
	return work(ctx, o)
}

// makePlan returns the plan of the job, for which it opens all models.
func (o *opened) makePlan() (*merge.Plan, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.plan == nil {
		plan, models, err := o.job.open()
		if err != nil {
			return nil, err
		}
		o.plan, o.all = plan, models
	}
	return o.plan, nil
}

// model returns model i, opened.
func (o *opened) model(i int) (*checkpoint.Model, error) {
	if i < 0 || i >= len(o.models) {
		return nil, fmt.Errorf("model %d of %d", i, len(o.models))
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.all != nil:
		return o.all[i], nil
	case o.models[i] != nil:
		return o.models[i], nil
	}
	m, err := checkpoint.Open(o.job.Models[i])
	if err != nil {
		return nil, err
	}
	o.models[i] = m
	return m, nil
}

func (o *opened) close() error {
	o.stop(errEnded)
	var errs []error
	for _, m := range o.models {
		if m != nil {
			errs = append(errs, m.Close())
		}
	}
	return errors.Join(append(errs, closeAll(o.all))...)
}
