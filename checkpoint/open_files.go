package checkpoint

import (
	"errors"
	"fmt"
	"syscall"
)

// fewFiles is how many files a process has open besides those that are written, at least.
const fewFiles = 8

// checkOpenFiles returns an error if the files of a model directory, which are all open while it is written, are more
// than this process may have open.
func checkOpenFiles(path string, plans []shardPlan) error {
	limit, ok := openFilesLimit()
	if n := len(plans) + fewFiles; !ok || uint64(n) <= limit {
		return nil
	}
	return tooManyShards(path, plans, syscall.EMFILE)
}

// tooManyShards says of an error that is about too many open files what is to be done, and returns others as they are.
func tooManyShards(path string, plans []shardPlan, err error) error {
	if !errors.Is(err, syscall.EMFILE) {
		return err
	}
	return fmt.Errorf("%s: %d shards are more files than can be open at a time: want larger shards, and so fewer: %w",
		path, len(plans), syscall.EMFILE)
}
