package hotkeys

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"github.com/weircache/weir/codec"
)

// The file of the hottest keys, which Config.HotKeysFile names:
//
//	magic    "weir hot keys\n"
//	version  one byte
//	name     of the namespace: its length as a uvarint, its bytes
//	keys     how many as a uvarint; for each its length as a uvarint, its bytes. Hottest first
//	sum      CRC-32C of all before, 4 bytes, big endian
//
// It is never changed in place: a new one is written beside it, synced and renamed.
const (
	magic   = "weir hot keys\n"
	version = 1
	// MaxKeys is how many keys a file has at most: what a cold owner warms before it knows its demand.
	MaxKeys = 10_000
	// MaxFile bounds a file, in bytes: ten thousand keys of 400 bytes.
	MaxFile = 4 << 20
	// Unnamed is the namespace of a file that has no name.
	Unnamed = "default"
	// lengthBytes is what the length of a name or a key takes at most, and so does the number of keys.
	lengthBytes = 2

	_ = uint(1<<(7*lengthBytes) - 1 - max(MaxKeys, codec.MaxKey, codec.MaxNamespace)) // does not compile if one needs more
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Append appends a file of keys, or of as many of the first ones as fit.
func Append(dst []byte, namespace string, keys []string) (file []byte, kept int) {
	var list []byte
	room := MaxFile - len(magic) - 1 - 2*lengthBytes - len(namespace) - crc32.Size
	for _, key := range keys[:min(len(keys), MaxKeys)] {
		if len(list)+lengthBytes+len(key) > room {
			break
		}
		list = binary.AppendUvarint(list, uint64(len(key)))
		list = append(list, key...)
		kept++
	}
	began := len(dst)
	dst = append(append(dst, magic...), version)
	dst = binary.AppendUvarint(dst, uint64(len(namespace)))
	dst = append(dst, namespace...)
	dst = binary.AppendUvarint(dst, uint64(kept))
	dst = append(dst, list...)
	return binary.BigEndian.AppendUint32(dst, crc32.Checksum(dst[began:], castagnoli)), kept
}

// parse returns the keys of a file. They share no memory with b. The error says what is wrong with the file.
func parse(b []byte, namespace string) (keys []string, err error) {
	rest, ok := bytes.CutPrefix(b, []byte(magic))
	switch {
	case !ok || len(rest) < 1+crc32.Size:
		return nil, errors.New("it is not a list of hot keys")
	case len(b) > MaxFile:
		return nil, fmt.Errorf("it has more than %d bytes", MaxFile)
	case rest[0] != version:
		return nil, fmt.Errorf("its format is version %d, this program reads %d", rest[0], version)
	}
	end := len(b) - crc32.Size
	if sum := binary.BigEndian.Uint32(b[end:]); sum != crc32.Checksum(b[:end], castagnoli) {
		return nil, errors.New("its checksum is wrong")
	}
	rest = rest[1 : len(rest)-crc32.Size]
	text := func(least, most int) (s string) {
		if err != nil {
			return ""
		}
		n, used := binary.Uvarint(rest)
		if used <= 0 || n < uint64(least) || n > uint64(most) || n > uint64(len(rest)-used) {
			err = fmt.Errorf("a length %d bytes before its end is wrong", len(rest))
			return ""
		}
		s, rest = string(rest[used:used+int(n)]), rest[used+int(n):]
		return s
	}
	if name := cmp.Or(text(0, codec.MaxNamespace), Unnamed); err == nil && name != namespace { // an earlier version wrote ""
		return nil, fmt.Errorf("it is of the namespace %q", name)
	}
	count, used := binary.Uvarint(rest)
	if err != nil || used <= 0 || count > MaxKeys {
		return nil, errors.Join(errors.New("its number of keys is wrong"), err)
	}
	rest = rest[used:]
	keys = make([]string, 0, count)
	for range count {
		keys = append(keys, text(1, codec.MaxKey))
	}
	switch {
	case err != nil:
		return nil, err
	case len(rest) > 0:
		return nil, fmt.Errorf("%d bytes are left over", len(rest))
	}
	return keys, nil
}

// Read reads a file of keys.
func Read(path, namespace string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() { // opening a pipe would wait for a writer
		return nil, errors.New("it is not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	return parse(b, namespace)
}

// Write replaces the file at path by a new one. Only its owner may read it. After an error the old file is
// unchanged.
func Write(path string, b []byte) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*") // with mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	if d, err := os.Open(dir); err == nil { // so that the new name survives a loss of power, where the system supports that
		_ = d.Sync()
		_ = d.Close()
	}
	return nil
}
