package checkpoint

import (
	"crypto/sha256"
	"encoding/binary"
	"io"
	"runtime"
	"sync"
	"weak"
)

// Models that are averaged have mostly the same header, byte for byte, and one of 100,000 tensors takes 16 MB as it is
// kept: models that are open at the same time share what was read from equal texts.

// tensors are what a model knows of its tensors. It is not changed once it was read.
type tensors struct {
	entries  []entry // sorted by name
	metadata packedMetadata
	shards   []Shard // by name of the file; nil if there is no index
	key      tensorsKey
}

// A tensorsKey is the SHA-256 of all that tensors are read from: the header and the size of the data, or the keys of
// shards and their names.
type tensorsKey [sha256.Size]byte

var openTensors struct {
	mu    sync.Mutex
	byKey map[tensorsKey]weak.Pointer[tensors]
}

// findTensors returns what was read from the same bytes and is still in use, or nil.
func findTensors(key tensorsKey) *tensors {
	openTensors.mu.Lock()
	defer openTensors.mu.Unlock()
	return openTensors.byKey[key].Value()
}

// noTensors reports whether there is nothing that findTensors could return.
func noTensors() bool {
	openTensors.mu.Lock()
	defer openTensors.mu.Unlock()
	return len(openTensors.byKey) == 0
}

// shareTensors makes t what findTensors returns for its key, unless there is something already, which it returns.
func shareTensors(t *tensors) *tensors {
	openTensors.mu.Lock()
	defer openTensors.mu.Unlock()
	if other := openTensors.byKey[t.key].Value(); other != nil {
		return other
	}
	if openTensors.byKey == nil {
		openTensors.byKey = make(map[tensorsKey]weak.Pointer[tensors])
	}
	openTensors.byKey[t.key] = weak.Make(t)
	runtime.AddCleanup(t, forgetTensors, t.key)
	return t
}

// forgetTensors removes the key, unless others have come since that were read from the same bytes.
func forgetTensors(key tensorsKey) {
	openTensors.mu.Lock()
	defer openTensors.mu.Unlock()
	if openTensors.byKey[key].Value() == nil {
		delete(openTensors.byKey, key)
	}
}

// headerKey returns the key of a header and of data of so many bytes.
func headerKey(header io.Reader, dataBytes int64) (key tensorsKey, err error) {
	h := sha256.New()
	_, err = io.Copy(h, header)
	h.Write(binary.LittleEndian.AppendUint64(nil, uint64(dataBytes)))
	h.Sum(key[:0])
	return key, err
}

// shardsKey returns the key of shards, from the names of their files and the keys of their headers.
func shardsKey(shards []Shard, keys []tensorsKey) (key tensorsKey) {
	h := sha256.New()
	for i, s := range shards {
		h.Write(keys[i][:])
		h.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(s.File))))
		h.Write([]byte(s.File))
	}
	h.Sum(key[:0])
	return key
}
