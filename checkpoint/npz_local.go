package checkpoint

import (
	"archive/zip"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// Before the data of a member is its local header, which package zip passes over. It has to have the name that the
// directory has, and no two members may have bytes in common: whoever reads such an archive from front to back finds
// other arrays in it than who goes by the directory.
const (
	localHeaderBytes = 30
	localSignature   = "PK\x03\x04"
	localNameLength  = 26 // offset of it in the header
	localExtraLength = 28

	// usualExtra is what an extra field mostly has at most; maxExtra is what it can have.
	usualExtra = 64
	maxExtra   = 1<<16 - 1
)

// checkLocalHeaders returns an error unless every member has a local header with its name, and bytes of its own.
func checkLocalHeaders(s *source, members []*zip.File) error {
	type span struct {
		begin, end int64
		file       *zip.File
	}
	spans := make([]span, 0, len(members))
	var buffer []byte
	for _, f := range members {
		data, err := f.DataOffset()
		if err == nil && (data > s.size || f.CompressedSize64 > uint64(s.size-data)) {
			err = fmt.Errorf("%d bytes at byte %d, but the file has %d", f.CompressedSize64, data, s.size)
		}
		if err != nil {
			return memberError(s, f, err)
		}
		var begin int64
		begin, buffer, err = localHeader(s, f.Name, data, buffer)
		if err != nil {
			return memberError(s, f, err)
		}
		spans = append(spans, span{begin, data + int64(f.CompressedSize64), f})
	}
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.begin, b.begin) })
	for i := 1; i < len(spans); i++ {
		if before := spans[i-1]; before.end > spans[i].begin {
			return memberError(s, spans[i].file, fmt.Errorf("begins at byte %d, inside of member %s, which ends at %d",
				spans[i].begin, quote(before.file.Name), before.end))
		}
	}
	return nil
}

// localHeader returns where the local header is that ends before the data at this offset, with that name in it. It reads
// into the buffer, and returns that or a larger one.
func localHeader(s *source, name string, data int64, buffer []byte) (int64, []byte, error) {
	for _, extra := range []int64{usualExtra, maxExtra} {
		n := min(localHeaderBytes+int64(len(name))+extra, data)
		buffer = slices.Grow(buffer[:0], int(n))
		before := buffer[:n]
		if _, err := s.readFull(before, data-n); err != nil {
			return 0, buffer, err
		}
		// The length of the extra field is in the header, whose place depends on it.
		for extra := 0; ; extra++ {
			begin := len(before) - extra - len(name) - localHeaderBytes
			if begin < 0 {
				break
			}
			h := before[begin:]
			if string(h[:4]) == localSignature && int(binary.LittleEndian.Uint16(h[localExtraLength:])) == extra &&
				int(binary.LittleEndian.Uint16(h[localNameLength:])) == len(name) &&
				string(h[localHeaderBytes:][:len(name)]) == name {
				return data - n + int64(begin), buffer, nil
			}
		}
		if n == data {
			break
		}
	}
	return 0, buffer, errors.New("the header before its data has another name than the directory of the archive")
}
