//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package checkpoint

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/modelavg/modelavg/internal/filelock"
)

// killedPath tells the process that TestRemoveStale starts what to write.
const killedPath = "CHECKPOINT_TEST_KILLED_PATH"

// killedShards tells it to write shards.
const killedShards = "CHECKPOINT_TEST_KILLED_SHARDS"

func TestMain(m *testing.M) {
	if path := os.Getenv(killedPath); path != "" {
		var opts []CreateOption
		if os.Getenv(killedShards) != "" {
			opts = append(opts, WithMaxShardSize(1))
		}
		w, err := Create(path, twoTensors, nil, opts...)
		if err != nil {
			os.Stdout.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		switch out := w.out.(type) {
		case *atomicFile:
			os.Stdout.WriteString(out.temp + "\n")
		case *outputDirectory:
			os.Stdout.WriteString(out.temp + "\n")
		}
		time.Sleep(time.Minute)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// writerProcess starts a process that writes a file, and returns it and the path of its temporary file.
func writerProcess(t *testing.T, path string) (*exec.Cmd, string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), killedPath+"="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return cmd, strings.TrimSpace(line)
}

// What a killed process leaves is removed, what a running one writes is not.
func TestRemoveStale(t *testing.T) {
	path := writeFile(t, []byte("old"))
	dir := filepath.Dir(path)
	killed, left := writerProcess(t, path)
	_, kept := writerProcess(t, path)
	own := create(t, path, twoTensors, nil)
	if _, err := os.Stat(left); err != nil {
		t.Fatalf("the temporary file of a running process: %v", err)
	}
	if removed, err := RemoveStale(path); len(removed) != 0 || err != nil {
		t.Errorf("while all are running, %v is removed, %v", removed, err)
	}
	if err := killed.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	killed.Wait()
	if _, err := os.Stat(left); err != nil {
		t.Fatalf("the temporary file of a killed process: %v", err)
	}
	// Names that are almost right, and what only has the right name.
	other := []string{
		filepath.Join(dir, "."+filepath.Base(path)+".00000000.0123456789abcdef.tmp"),
		strings.TrimSuffix(left, ".tmp"),
		strings.Replace(left, ".m.", ".n.", 1),
	}
	for _, name := range other {
		if err := os.WriteFile(name, nil, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(dir, tempPrefix(path)+"0000000000000000.tmp")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if removed, err := RemoveStale(path); !slices.Equal(removed, []string{left}) || err != nil {
		t.Errorf("removed %q, %v, want %q", removed, err, left)
	}
	for _, name := range append(other, link, kept, own.out.(*atomicFile).temp, path) {
		if _, err := os.Lstat(name); err != nil {
			t.Errorf("removed, but not stale: %v", err)
		}
	}
	if removed, err := RemoveStale(filepath.Join(dir, "none", "out")); removed != nil || err != nil {
		t.Errorf("no such directory: %v, %v", removed, err)
	}
}

// The next run removes what a killed one left.
func TestCreateRemovesStale(t *testing.T) {
	path := writeFile(t, []byte("old"))
	killed, _ := writerProcess(t, path)
	killed.Process.Kill()
	killed.Wait()
	write(t, path, nil, nil, nil)
	wantFiles(t, filepath.Dir(path), "m.safetensors")
}

// So do a directory that was not there before, and files in one that was.
func TestRemoveStaleShards(t *testing.T) {
	t.Setenv(killedShards, "1")
	for _, exists := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "out")
		if exists {
			if err := os.Mkdir(path, 0o777); err != nil {
				t.Fatal(err)
			}
		}
		killed, left := writerProcess(t, path)
		inside := left
		if exists {
			inside = path
		}
		if removed, err := RemoveStale(path); len(removed) != 0 || err != nil {
			t.Errorf("while it is running, %v is removed, %v", removed, err)
		}
		killed.Process.Kill()
		killed.Wait()
		if n := len(readDir(t, inside)); n != 3 {
			t.Errorf("a killed process has left %d files in %s, want 3", n, inside)
		}
		other := filepath.Join(filepath.Dir(path), "out2"+strings.TrimPrefix(tempPrefix(path), ".out")+"0000000000000000.tmp")
		if err := os.Mkdir(other, 0o777); err != nil {
			t.Fatal(err)
		}
		removed, err := RemoveStale(path)
		if err != nil || exists && len(removed) != 3 || !exists && !slices.Equal(removed, []string{left}) {
			t.Errorf("removed %q, %v", removed, err)
		}
		want := []string{filepath.Base(other)}
		if exists {
			want = []string{"out", filepath.Base(other)}
			wantFiles(t, path)
		}
		wantFiles(t, filepath.Dir(path), want...)
	}
}

// A file that was removed between its creation and its lock is not used.
func TestIsAt(t *testing.T) {
	path := writeFile(t, nil)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if !filelock.IsAt(f, path) {
		t.Error("the file is not at its path")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if filelock.IsAt(f, path) {
		t.Error("a removed file is at its path")
	}
	if err := os.WriteFile(path, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if filelock.IsAt(f, path) {
		t.Error("another file passes for a removed one")
	}
}
