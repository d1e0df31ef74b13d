package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"time"
)

// A scoreLog is the file of --log: a line of JSON for each score. Without a file nothing is kept.
type scoreLog struct {
	key     string
	read    readFlags
	file    *os.File
	entries []scoreEntry
}

// A scoreEntry is a line of the log.
type scoreEntry struct {
	Key   string      `json:"key"`   // command and flags
	Files []fileState `json:"files"` // of which the mean has the score
	Score string      `json:"score"` // a number, NaN and infinities among them, which JSON cannot write
}

// A fileState tells whether a file is still the same.
type fileState struct {
	Path     string    `json:"path"`
	Size     int64     `json:"size"`
	Modified time.Time `json:"modified"`
}

// openScoreLog reads the log at path, if there is one, and opens it to add to it. An unfinished line at the end, which a
// killed run may leave, is cut off.
func openScoreLog(path, key string, read readFlags) (*scoreLog, error) {
	l := &scoreLog{key: key, read: read}
	if path == "" {
		return l, nil
	}
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	end := bytes.LastIndexByte(text, '\n') + 1
	number := 0
	for line := range bytes.Lines(text[:end]) {
		number++
		var e scoreEntry
		err := json.Unmarshal(line, &e)
		if err == nil {
			_, err = strconv.ParseFloat(e.Score, 64)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: line %d is no score: %w", path, number, err)
		}
		l.entries = append(l.entries, e)
	}
	if l.file, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666); err != nil {
		return nil, err
	}
	if err = l.file.Truncate(int64(end)); err == nil {
		_, err = l.file.Seek(0, io.SeekEnd)
	}
	if err != nil {
		return nil, errors.Join(err, l.file.Close())
	}
	return l, nil
}

// newEntry returns an entry, without score, for the mean of the files as they are now.
func (l *scoreLog) newEntry(files []string) (scoreEntry, error) {
	e := scoreEntry{Key: l.key}
	for _, path := range files {
		parts, err := l.partsOf(path)
		if err != nil {
			return e, err
		}
		for _, part := range parts {
			info, err := os.Stat(part)
			if err != nil {
				return e, err
			}
			e.Files = append(e.Files, fileState{part, info.Size(), info.ModTime().UTC().Round(0)})
		}
	}
	return e, nil
}

// partsOf returns the files with the weights of a model.
func (l *scoreLog) partsOf(path string) ([]string, error) {
	m, err := l.read.open(path)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	if m.Dir() == "" {
		return []string{path}, nil
	}
	var parts []string
	if m.Index() != "" {
		parts = append(parts, m.Index())
	}
	for _, s := range m.Shards() {
		parts = append(parts, filepath.Join(m.Dir(), s.File))
	}
	return parts, nil
}

// find returns the score of the entry, if it is known.
func (l *scoreLog) find(e scoreEntry) (float64, bool) {
	for _, known := range l.entries {
		if known.Key == e.Key && reflect.DeepEqual(known.Files, e.Files) {
			score, err := strconv.ParseFloat(known.Score, 64)
			return score, err == nil
		}
	}
	return 0, false
}

// add adds the score of the entry.
func (l *scoreLog) add(e scoreEntry, score float64) error {
	e.Score = strconv.FormatFloat(score, 'g', -1, 64)
	l.entries = append(l.entries, e)
	if l.file == nil {
		return nil
	}
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	_, err = l.file.Write(append(line, '\n'))
	return err
}

func (l *scoreLog) close() error {
	if l.file == nil {
		return nil
	}
	return l.file.Close()
}
