package checkpoint

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// numbersArchive returns an archive of two arrays, "a" and "f", of which f is in Fortran's order.
func numbersArchive(t testing.TB, method uint16) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, name := range []string{"a", "f"} {
		order := map[string]string{"a": "False", "f": "True"}[name]
		content := npyFile("{'descr':'<u2','fortran_order':"+order+",'shape':(300,70)}", 0)
		for i := range 300 * 70 {
			content = append(content, byte(i*i), byte(i>>3))
		}
		f, err := w.CreateHeader(&zip.FileHeader{Name: name + npyExtension, Method: method})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// memberRanges returns where the data of the members are in the archive.
func memberRanges(t testing.TB, archive []byte) map[string][2]int64 {
	t.Helper()
	z, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
	if err != nil {
		t.Fatal(err)
	}
	ranges := make(map[string][2]int64)
	for _, f := range z.File {
		begin, err := f.DataOffset()
		if err != nil {
			t.Fatal(err)
		}
		ranges[strings.TrimSuffix(f.Name, npyExtension)] = [2]int64{begin, begin + int64(f.CompressedSize64)}
	}
	return ranges
}

// A bit that is another than when the archive was written is an error of Violations, and of the first read of that
// array, whatever part of it is asked for, and of every read that follows; the other array is not concerned.
func TestChecksumOfMember(t *testing.T) {
	for method, kind := range map[uint16]string{zip.Store: "stored", zip.Deflate: "deflated"} {
		good := numbersArchive(t, method)
		for name, r := range memberRanges(t, good) {
			for _, at := range []int64{r[1] - 1, (r[0] + r[1]) / 2} {
				t.Run(fmt.Sprintf("%s/%s/%d", kind, name, at-r[0]), func(t *testing.T) {
					bad := bytes.Clone(good)
					bad[at] ^= 4
					path := filepath.Join(t.TempDir(), "a.npz")
					if err := os.WriteFile(path, bad, 0o666); err != nil {
						t.Fatal(err)
					}
					list := violationsIn(path)
					if len(list) != 1 || !strings.HasPrefix(list[0], `a.npz: member "`+name+`.npy": `) {
						t.Errorf("violations %q", list)
					}
					m := open(t, path)
					for _, off := range []int64{0, 20_000, 0} {
						_, err := m.ReadAt(name, make([]byte, 2), off)
						if err == nil || !strings.HasPrefix(err.Error(), path+": tensor \""+name+"\": read 0 of 2 bytes") {
							t.Fatalf("read at %d: error %v", off, err)
						}
						if kind == "stored" && !strings.Contains(err.Error(), "CRC-32 of ") {
							t.Errorf("error %v", err)
						}
					}
					other := map[string]string{"a": "f", "f": "a"}[name]
					if _, err := m.ReadAt(other, make([]byte, 2), 100); err != nil {
						t.Error(err)
					}
				})
			}
		}
	}
}

// A checksum of zero is one like the others: NumPy refuses it too.
func TestChecksumOfZero(t *testing.T) {
	for method, kind := range map[uint16]string{zip.Store: "stored", zip.Deflate: "deflated"} {
		archive := numbersArchive(t, method)
		for _, record := range []struct {
			begin string
			at    int
		}{{"PK\x01\x02", 16}, {"PK\x07\x08", 4}} { // the directory and the descriptor after the data
			for i := bytes.Index(archive, []byte(record.begin)); i >= 0; {
				binary.LittleEndian.PutUint32(archive[i+record.at:], 0)
				next := bytes.Index(archive[i+4:], []byte(record.begin))
				if next < 0 {
					break
				}
				i += 4 + next
			}
		}
		path := filepath.Join(t.TempDir(), "a.npz")
		if err := os.WriteFile(path, archive, 0o666); err != nil {
			t.Fatal(err)
		}
		if list := violationsIn(path); len(list) != 2 || !strings.Contains(list[0], "0x00000000") {
			t.Errorf("%s: violations %q", kind, list)
		}
		if _, err := open(t, path).ReadAt("a", make([]byte, 2), 0); err == nil {
			t.Errorf("%s: no error", kind)
		}
	}
}

// The check ends with the context, and many reads at once share one.
func TestChecksumOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.npz")
	archive := numbersArchive(t, zip.Store)
	if err := os.WriteFile(path, archive, 0o666); err != nil {
		t.Fatal(err)
	}
	stopped := errors.New("stopped")
	ctx, cancel := context.WithCancelCause(t.Context())
	m := open(t, path, WithContext(ctx))
	cancel(stopped)
	if _, err := m.ReadAt("a", make([]byte, 2), 0); !errors.Is(err, stopped) {
		t.Errorf("error %v", err)
	}
	var last error
	for err := range Violations(path, WithContext(ctx)) {
		last = err
	}
	if !errors.Is(last, stopped) {
		t.Errorf("violation %v", last)
	}

	m = open(t, path)
	begin := memberRanges(t, archive)["a"][0]
	if at, err := m.Offset("a"); err != nil || at <= begin {
		t.Errorf("data at byte %d, of a member at %d, error %v", at, begin, err)
	}
	var group sync.WaitGroup
	for i := range 20 {
		group.Go(func() {
			p := make([]byte, 2)
			if _, err := m.ReadAt("a", p, int64(2*i)); err != nil || p[0] != byte(i*i) {
				t.Errorf("element %d: %v, error %v", i, p, err)
			}
		})
	}
	group.Wait()
}

// What is stored in an archive is read at the speed of a file, once its checksum was compared.
func BenchmarkStoredMember(b *testing.B) {
	content := append(npyFile("{'descr':'|u1','fortran_order':False,'shape':(67108864,)}", 0), make([]byte, 64<<20)...)
	path := filepath.Join(b.TempDir(), "a.npz")
	archive := zipFile(b, zip.FileHeader{Name: "a.npy", Comment: string(content), CRC32: crc32.ChecksumIEEE(content)})
	if err := os.WriteFile(path, archive, 0o666); err != nil {
		b.Fatal(err)
	}
	p := make([]byte, 1<<20)
	b.SetBytes(64 << 20)
	for b.Loop() {
		m, err := Open(path)
		if err != nil {
			b.Fatal(err)
		}
		for off := range int64(64) {
			if _, err := m.ReadAt("a", p, off<<20); err != nil {
				b.Fatal(err)
			}
		}
		m.Close()
	}
}
