// Package trace reads recorded requests, so that a load can replay the requests of a real service.
//
// There are three formats, each plain or compressed with gzip or Zstandard. The first bytes of the file identify the
// compression, not its name:
//
//	oraclegeneral  libCacheSim's: 24 bytes a request, little-endian: u32 seconds, u64 key, u32 bytes, i64 next access or -1.
//	               libCacheSim converts other formats to it.
//	cache2k        cache2k's: a big-endian u32 a request
//	keys           a key a line
package trace

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/klauspost/compress/zstd"
)

// A Format is a notation for requests.
type Format string

// The formats; the package comment describes them.
const (
	OracleGeneral Format = "oraclegeneral"
	Cache2k       Format = "cache2k"
	Keys          Format = "keys"
)

// Formats returns the names of all formats.
func Formats() []string { return []string{string(OracleGeneral), string(Cache2k), string(Keys)} }

// A Log is a trace in memory: the requests as key numbers.
type Log struct {
	Names []string // of the keys, in the order of their first request
	Sizes []int32  // of the keys' values as first recorded; 0: not recorded
	Keys  []int32  // one key per request
}

const (
	maxRequests  = 100_000_000 // bounds what is held in memory: 4 bytes per request, and the names of the keys
	maxKey       = 1 << 10     // in bytes; a longer line is no key
	maxValueSize = 1<<31 - 1   // a larger value would not be requested from a cache
	zstdMemory   = 256 << 20
)

// Load reads a file into memory, at most limit requests (0: all). If the file is damaged or in another format, Load
// returns the requests before the damage, and the error.
func Load(path string, format Format, limit int) (*Log, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("trace: %w", err)
	}
	defer func() { _ = f.Close() }() // it has been read, or its error is known
	l := &Log{}
	if err := l.read(f, format, limit); err != nil {
		return l, fmt.Errorf("trace %s: after %d requests: %w; is it a %s trace?", path, len(l.Keys), err, format)
	}
	return l, nil
}

// decompress returns what in contains, and a function that frees the decompressor.
func decompress(in io.Reader) (*bufio.Reader, func(), error) {
	const size = 64 << 10
	raw := bufio.NewReaderSize(in, size)
	magic, _ := raw.Peek(4) // an error comes again with the first read
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(raw)
		if err != nil {
			return nil, nil, fmt.Errorf("the gzip header is damaged: %w", err)
		}
		return bufio.NewReaderSize(z, size), func() {}, nil
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(raw, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(zstdMemory))
		if err != nil {
			return nil, nil, err
		}
		return bufio.NewReaderSize(z, size), z.Close, nil
	}
	return raw, func() {}, nil
}

// A parser returns the next request of a trace: its key, which is valid until the next call, and the size of the value.
// count is how many came before. The error at the end is io.EOF.
type parser func(in *bufio.Reader, count int) (key []byte, size int32, err error)

func (l *Log) read(in io.Reader, format Format, limit int) error {
	next := map[Format]parser{OracleGeneral: oracleGeneral, Cache2k: cache2k, Keys: keyLine}[format]
	if next == nil {
		return fmt.Errorf("there is no format %q; the formats are %v", format, Formats())
	}
	plain, free, err := decompress(in)
	if err != nil {
		return err
	}
	defer free()
	known := make(map[string]int32)
	for limit == 0 || len(l.Keys) < limit {
		key, size, err := next(plain, len(l.Keys))
		switch {
		case errors.Is(err, io.ErrUnexpectedEOF):
			return fmt.Errorf("it ends within a request: %w", err)
		case err == io.EOF && len(l.Keys) == 0:
			return errors.New("it is empty")
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		case len(l.Keys) == maxRequests:
			return errors.New("there are more; set a limit")
		}
		i, ok := known[string(key)]
		if !ok {
			i = int32(len(l.Names))
			known[string(key)] = i
			l.Names, l.Sizes = append(l.Names, string(key)), append(l.Sizes, size)
		}
		l.Keys = append(l.Keys, i)
	}
	return nil
}

func oracleGeneral(in *bufio.Reader, count int) ([]byte, int32, error) {
	var b [24]byte
	if _, err := io.ReadFull(in, b[:]); err != nil {
		return nil, 0, err
	}
	key, size := binary.LittleEndian.Uint64(b[4:]), binary.LittleEndian.Uint32(b[12:])
	if size > maxValueSize {
		return nil, 0, fmt.Errorf("a value of %d bytes", size)
	}
	// The next access is the number of a request and never precedes this one; -1 and the largest i64 mean "never".
	if next := int64(binary.LittleEndian.Uint64(b[16:])); next != -1 && next < int64(count) {
		return nil, 0, fmt.Errorf("request %d is said to come again at request %d", count, next)
	}
	return strconv.AppendUint(nil, key, 10), int32(size), nil
}

func cache2k(in *bufio.Reader, _ int) ([]byte, int32, error) {
	var b [4]byte
	if _, err := io.ReadFull(in, b[:]); err != nil {
		return nil, 0, err
	}
	return strconv.AppendUint(nil, uint64(binary.BigEndian.Uint32(b[:])), 10), 0, nil
}

// keyLine skips empty lines. The last line needs no line ending.
func keyLine(in *bufio.Reader, _ int) ([]byte, int32, error) {
	for {
		line, err := in.ReadSlice('\n')
		key := bytes.TrimRight(line, "\r\n")
		switch {
		case len(key) > maxKey:
			return nil, 0, fmt.Errorf("a key of more than %d bytes", maxKey)
		case bytes.ContainsFunc(key, control):
			return nil, 0, errors.New("a line with bytes that no text has")
		case len(key) > 0 && (err == nil || err == io.EOF):
			return key, 0, nil
		case err != nil:
			return nil, 0, err
		}
	}
}

// control reports whether c occurs only in binary files.
func control(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }
