//go:build unix

package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// A model of which nothing is left is not written; one that has no tensors is.
func TestNothingLeft(t *testing.T) {
	inDirectory(t)
	writeHostile(t, "other")
	empty := append(binary.LittleEndian.AppendUint64(nil, 2), "{}"...)
	if err := os.WriteFile("empty", empty, 0o666); err != nil {
		t.Fatal(err)
	}
	before := files(t)
	for line, want := range map[string]string{
		"mean --exclude .* -o out a b":                                           "nothing is left to average: 2 tensors excluded\n",
		"weighted -w 1,0 --include ^w --exclude t -o out a b":                    "nothing is left to average: 2 tensors excluded\n",
		"ewa --decay 0.5 --keys intersection -o out a other":                     "nothing is left to average: 5 tensors not in all models\n",
		"mean --keys intersection --exclude weight -o out a other":               "2 tensors excluded, 3 tensors not in all models\n",
		"plan mean --exclude .* a b":                                             "nothing is left to average: 2 tensors excluded\n",
		"plan mean --exclude .* --json a b":                                      "nothing is left to average: 2 tensors excluded\n",
		"soup --eval echo_1 --exclude .* -o out a b":                             "nothing is left to average: 2 tensors excluded\n",
		"mean --exclude .* --part 1/2 -o out a b":                                "nothing is left to average: 2 tensors excluded\n",
		"weighted --keys union -w 1,0 --exclude weight|steps -o out empty other": "2 tensors excluded, 1 tensor in no model that is read\n",
	} {
		args := strings.Fields(line)
		for i := range args {
			args[i] = strings.Replace(args[i], "echo_1", "echo 1 {}", 1)
		}
		status, _, stderr := executeArgs(t, args...)
		if status != statusFailed || !strings.HasPrefix(stderr, "modelavg: nothing is left to average: ") ||
			!strings.HasSuffix(stderr, want) {
			t.Errorf("%s: status %d, stderr %q, want %q", line, status, stderr, want)
		}
		if got := files(t); !slices.Equal(got, before) {
			t.Errorf("%s: files %q", line, got)
		}
	}
	for _, line := range []string{"mean -o out empty empty", "mean --exclude weight -o out a b"} {
		if status, _, stderr := execute(t, line); status != statusDone {
			t.Errorf("%s: status %d, %s", line, status, stderr)
		}
	}
}

// More shards than files can be open are an error that says so, before anything is averaged.
func TestTooManyShards(t *testing.T) {
	t.Chdir(t.TempDir())
	var header strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&header, `,"t%d":{"dtype":"F32","shape":[1],"data_offsets":[%d,%d]}`, i, 4*i, 4*i+4)
	}
	text := "{" + header.String()[1:] + "}"
	file := append(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text...)
	if err := os.WriteFile("a", append(file, make([]byte, 12000)...), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"mean", "soup --eval 'echo 1; true {}'"} {
		cmd := exec.Command("sh", "-c", "ulimit -n 256; exec "+shellQuote(program)+" "+command+
			" --max-shard-size 1 -o out a a")
		out, err := cmd.CombinedOutput()
		const want = "modelavg: out: 3000 shards are more files than can be open at a time: " +
			"want larger shards, and so fewer: too many open files\n"
		if cmd.ProcessState.ExitCode() != statusFailed || !strings.HasSuffix(string(out), want) {
			t.Errorf("%s: %v\n%s\nwant %s", command, err, out, want)
		}
		if got := files(t); !slices.Equal(got, []string{"a"}) {
			t.Errorf("%s: files %q", command, got)
		}
	}
}
