package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"
)

// allocate maps n bytes, outside Go's heap so that the advice about pages holds for all of them.
func allocate(n int, pages string) ([]byte, error) {
	b, err := syscall.Mmap(-1, 0, n, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		return nil, err
	}
	switch pages {
	case "on":
		err = syscall.Madvise(b, syscall.MADV_HUGEPAGE)
	case "off":
		err = syscall.Madvise(b, syscall.MADV_NOHUGEPAGE)
	}
	if err != nil {
		return nil, fmt.Errorf("transparent huge pages %s: %w", pages, err)
	}
	return b, nil
}

// systemPages returns what the system does with huge pages, for the header of the results.
func systemPages() string {
	text, _ := os.ReadFile("/sys/kernel/mm/transparent_hugepage/enabled")
	_, after, _ := strings.Cut(string(text), "[")
	setting, _, _ := strings.Cut(after, "]")
	return setting
}
