package main

import (
	"fmt"
	"os"
)

// A soupInput is a file with weights of a model, as it was when the soup was begun.
type soupInput struct {
	path string
	info os.FileInfo
}

// remember notes how all files are. Every score is about them as they are now, and so has the mean at the end to be.
func (s *soup) remember() error {
	s.inputs = make([][]soupInput, len(s.files))
	for i, file := range s.files {
		parts, err := partsOf(s.read, file)
		if err != nil {
			return err
		}
		for _, part := range parts {
			info, err := os.Stat(part)
			if err != nil {
				return err
			}
			s.inputs[i] = append(s.inputs[i], soupInput{part, info})
		}
	}
	return nil
}

// unchanged returns an error if one of the files of the set is another, or has another size or time of modification, than
// when the soup was begun.
func (s *soup) unchanged(set []int) error {
	for _, i := range set {
		for _, was := range s.inputs[i] {
			is, err := os.Stat(was.path)
			switch {
			case err != nil:
				return err
			case !os.SameFile(is, was.info), is.Size() != was.info.Size(), !is.ModTime().Equal(was.info.ModTime()):
				return fmt.Errorf("%s: has changed since the soup was begun, so that scores are about another model", was.path)
			}
		}
	}
	return nil
}
