package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// Every command has a page, with its flags and its example.
func TestManPages(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "man", "pages")
	t.Setenv("SOURCE_DATE_EPOCH", "1700000000")
	status, stdout, stderr := executeArgs(t, "man", "--dir", dir)
	if status != statusDone || stdout != "" || stderr != "" {
		t.Fatalf("status %d, %q, %q", status, stdout, stderr)
	}
	pages := 0
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Hidden || c.Name() == "help" || c.Name() == "completion" {
			return
		}
		pages++
		name := strings.ReplaceAll(c.CommandPath(), " ", "-") + ".1"
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
			return
		}
		page := strings.ReplaceAll(string(text), "\\", "")
		for _, want := range []string{".TH ", "Nov 2023", c.Short, strings.TrimSpace(strings.Split(c.Example,
			"\n")[0])} {
			if !strings.Contains(page, strings.ReplaceAll(want, "\\", "")) {
				t.Errorf("%s: %q is not in it\n%s", name, want, page)
			}
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(newRoot())
	if list, err := os.ReadDir(dir); err != nil || len(list) < pages || pages < 12 {
		t.Errorf("%d pages for %d commands, %v", len(list), pages, err)
	}

	if status, _, stderr := execute(t, "man"); status != statusUsage || !strings.Contains(stderr,
		"no directory given") {
		t.Errorf("status %d, %q", status, stderr)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if status, _, stderr := executeArgs(t, "man", "--dir", file); status != statusFailed || !strings.Contains(stderr,
		"file") {
		t.Errorf("status %d, %q", status, stderr)
	}
}

// The pages are what groff accepts without a warning, where there is groff.
func TestManPagesFormat(t *testing.T) {
	groff, err := exec.LookPath("groff")
	if err != nil {
		t.Skip("no groff")
	}
	dir := t.TempDir()
	if err := writeManPages(newRoot(), dir); err != nil {
		t.Fatal(err)
	}
	list, err := filepath.Glob(filepath.Join(dir, "*.1"))
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range list {
		var stderr bytes.Buffer
		cmd := exec.Command(groff, "-man", "-Tutf8", "-ww", "-z", page)
		cmd.Stderr = &stderr
		if err := cmd.Run(); err != nil || stderr.Len() > 0 {
			t.Errorf("%s: %v\n%s", filepath.Base(page), err, stderr.String())
		}
	}
}

// The script for bash is one that bash can read.
func TestCompletionScript(t *testing.T) {
	status, script, stderr := execute(t, "completion bash")
	if status != statusDone || stderr != "" {
		t.Fatalf("status %d, %s", status, stderr)
	}
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("no bash")
	}
	cmd := exec.Command(bash, "-n")
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("bash -n: %v\n%s", err, out)
	}
	for line, want := range map[string]string{
		"__complete mean --integers ":      "max",
		"__complete plan ":                 "weighted",
		"__complete diff --by ":            "cosine",
		"__complete soup --dtype ":         "bf16",
		"__complete inspect ":              "safetensors",
		"__complete plan ewa --weighting ": "power",
	} {
		args := append(strings.Fields(line), "")
		if status, stdout, _ := executeArgs(t, args...); status != statusDone || !strings.Contains(stdout, want) {
			t.Errorf("%s: status %d, want %q in\n%s", line, status, want, stdout)
		}
	}
}
