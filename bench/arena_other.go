//go:build !linux

package main

import "errors"

func allocate(n int, pages string) ([]byte, error) {
	if pages != "system" {
		return nil, errors.New("huge pages can be chosen on Linux only")
	}
	return make([]byte, n), nil
}

func systemPages() string { return "" }
