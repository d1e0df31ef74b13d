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

	"github.com/modelavg/modelavg/internal/filelock"
)

// A scoreLog is the file of --log: a line of JSON for each score. Without a file nothing is kept.
type scoreLog struct {
	key     string
	read    readFlags
	file    *os.File // locked
	size    int64    // of the file
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

// maxScoreLog is how large a log may be, in bytes.
const maxScoreLog = 256 << 20

// lineBegin is what every line of a log begins with.
const lineBegin = `{"key":"`

// openScoreLog reads the log at path, if there is one, and opens it to add to it. Until it is closed no other process
// can do so. An unfinished line at the end, which a killed run may leave, is cut off; nothing else is. A file that is
// no log is an error, as is one of the others, which the run reads or writes.
func openScoreLog(path, key string, read readFlags, others []string) (*scoreLog, error) {
	l := &scoreLog{key: key, read: read}
	if path == "" {
		return l, nil
	}
	info, err := os.Stat(path)
	there := err == nil
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, err
	case there && !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s: is %s, want a file of scores", path, kindOf(info.Mode()))
	}
	// Whatever has come to the path since is not waited for.
	if l.file, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND|filelock.DontWait, 0o666); err != nil {
		return nil, err
	}
	if err := l.begin(path, there, others); err != nil {
		return nil, errors.Join(err, l.close())
	}
	return l, nil
}

// kindOf names what is no regular file.
func kindOf(mode fs.FileMode) string {
	switch {
	case mode.IsDir():
		return "a directory"
	case mode&fs.ModeNamedPipe != 0:
		return "a named pipe"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	}
	return "a device"
}

// begin locks and reads the file, which was there before or not.
func (l *scoreLog) begin(path string, there bool, others []string) error {
	info, err := l.file.Stat()
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s: is %s, want a file of scores", path, kindOf(info.Mode()))
	}
	for _, other := range others {
		if o, err := os.Stat(other); err == nil && os.SameFile(info, o) {
			if !there {
				_ = os.Remove(path)
			}
			return fmt.Errorf("--log %s: is the same file as %s: want another one", path, other)
		}
	}
	if filelock.Lock(l.file) == filelock.Taken {
		return fmt.Errorf("%s: another soup adds scores to it: wait for its end, or give each its own log", path)
	}
	// The size before the lock may have been that before the last score of another run.
	if info, err = l.file.Stat(); err != nil {
		return err
	}
	l.size = info.Size()
	begin := make([]byte, min(l.size, int64(len(lineBegin))))
	if _, err := io.ReadFull(l.file, begin); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	switch {
	case len(begin) == 0:
		return nil
	case string(begin) != lineBegin:
		return fmt.Errorf("%s: is no log of scores, and is left as it is: line 1 does not begin with %s", path, lineBegin)
	case l.size > maxScoreLog:
		return fmt.Errorf("%s: has %d bytes, want a log of at most %d", path, l.size, int64(maxScoreLog))
	}
	text := make([]byte, l.size)
	if _, err := io.ReadFull(io.NewSectionReader(l.file, 0, l.size), text); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return l.parse(path, text)
}

// parse reads the lines of the log, and ends the last one.
func (l *scoreLog) parse(path string, text []byte) error {
	number := 0
	for line := range bytes.Lines(text) {
		number++
		e, err := parseEntry(line)
		switch whole := line[len(line)-1] == '\n'; {
		case err == nil && !whole:
			if _, err := l.file.Write([]byte{'\n'}); err != nil {
				return err
			}
			l.size++
		case err != nil && !whole && number > 1 && beginsLikeEntry(line):
			l.size -= int64(len(line))
			return l.file.Truncate(l.size)
		case err != nil:
			return fmt.Errorf("%s: line %d is no score, and the file is left as it is: %w", path, number, err)
		}
		l.entries = append(l.entries, e)
	}
	return nil
}

// beginsLikeEntry reports whether the end of a log may be an unfinished line.
func beginsLikeEntry(line []byte) bool {
	n := min(len(line), len(lineBegin))
	return string(line[:n]) == lineBegin[:n]
}

// parseEntry reads a line.
func parseEntry(line []byte) (scoreEntry, error) {
	var e scoreEntry
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&e); err != nil {
		return e, err
	}
	if _, err := d.Token(); err != io.EOF {
		return e, errors.New("there is something after it")
	}
	if _, err := strconv.ParseFloat(e.Score, 64); err != nil {
		return e, err
	}
	if e.Files == nil {
		return e, errors.New("it names no files")
	}
	return e, nil
}

// newEntry returns an entry, without score, for the mean of the files as they are now.
func (l *scoreLog) newEntry(files []string) (scoreEntry, error) {
	e := scoreEntry{Key: l.key}
	for _, path := range files {
		parts, err := partsOf(l.read, path)
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
func partsOf(read readFlags, path string) ([]string, error) {
	m, err := read.open(path)
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
	line = append(line, '\n')
	if _, err = l.file.Write(line); err != nil {
		return errors.Join(err, l.file.Truncate(l.size)) // a part of it may be there
	}
	l.size += int64(len(line))
	return nil
}

func (l *scoreLog) close() error {
	if l.file == nil {
		return nil
	}
	return l.file.Close()
}
