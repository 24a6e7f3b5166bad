package trace

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
)

// A Format is a notation for requests.
type Format string

// The formats; the package comment describes them.
const (
	OracleGeneral Format = "oraclegeneral"
	Twitter       Format = "twitter"
	ARC           Format = "arc"
	LIRS          Format = "lirs"
	Cache2k       Format = "cache2k"
	Keys          Format = "keys"
)

// Formats returns all formats, by the names that a scenario may use.
func Formats() []Format { return []Format{OracleGeneral, Twitter, ARC, LIRS, Cache2k, Keys} }

// Op is an operation on a key.
type Op uint8

// The operations. Formats that do not record them have only reads.
const (
	Read  Op = iota
	Write    // set, add, replace, increment and the like
	Delete
)

// A Request is one line or record. Key is valid until the next call of Next.
type Request struct {
	Key  []byte
	Size int           // of the value, in bytes; 0: not recorded
	At   time.Duration // since the first request; always 0 if times are not recorded
	Op   Op
}

// An Error says where and why a trace cannot be read.
type Error struct {
	Name    string // of the file
	Format  Format
	Offset  int64 // of the request, in bytes after decompression
	Line    int   // from 1; 0 in binary formats
	Problem string
	Err     error // the error of reading, if that is the cause
}

// Error returns the file, the place and the problem.
func (e *Error) Error() string {
	at := fmt.Sprintf("offset %d", e.Offset)
	if e.Line > 0 {
		at = fmt.Sprintf("line %d (offset %d)", e.Line, e.Offset)
	}
	s := fmt.Sprintf("trace %s: %s: %s; is it a %s trace?", e.Name, at, e.Problem, e.Format)
	if e.Err != nil {
		s += " (" + e.Err.Error() + ")"
	}
	return s
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

const (
	maxLine      = 64 << 10 // a longer line is not a request
	maxValueSize = 1 << 31  // a larger value would not be requested from a cache
	zstdMemory   = 256 << 20
)

// A Reader reads requests in order. It is not safe for concurrent use.
type Reader struct {
	name   string
	format Format
	in     *bufio.Reader
	closes []func() error
	next   func(*Reader) (Request, error)

	offset int64 // of the current request
	line   int
	count  int64
	first  int64 // time of the first request, seconds
	last   int64
	buf    []byte

	block, blocks uint64 // the rest of an ARC line
	failed        error
}

// Open opens a file; Close it.
func Open(path string, format Format) (*Reader, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("trace: %w", err)
	}
	r, err := newReader(f, path, format)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	r.closes = append(r.closes, f.Close)
	return r, nil
}

// newReader reads from in; errors call it name. Close frees the decompressor and does not close in.
func newReader(in io.Reader, name string, format Format) (*Reader, error) {
	r := &Reader{name: name, format: format}
	switch Format(strings.ToLower(string(format))) {
	case OracleGeneral:
		r.next = (*Reader).oracleGeneral
	case Cache2k:
		r.next = (*Reader).cache2k
	case Twitter:
		r.next = (*Reader).twitter
	case ARC:
		r.next = (*Reader).arc
	case LIRS:
		r.next = (*Reader).lirs
	case Keys:
		r.next = (*Reader).keyLine
	default:
		return nil, fmt.Errorf("trace %s: there is no format %q; the formats are %v", name, format, Formats())
	}
	raw := bufio.NewReaderSize(in, 64<<10)
	magic, err := raw.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("trace %s: %w", name, err)
	}
	r.in = raw
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(raw)
		if err != nil {
			return nil, &Error{Name: name, Format: format, Problem: "the gzip header is damaged", Err: err}
		}
		r.in = bufio.NewReaderSize(z, 64<<10)
		// Close repeats the error that reading has already returned.
		r.closes = append(r.closes, func() error { _ = z.Close(); return nil })
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(raw, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(zstdMemory))
		if err != nil {
			return nil, &Error{Name: name, Format: format, Problem: "the Zstandard header is damaged", Err: err}
		}
		r.in = bufio.NewReaderSize(z, 64<<10)
		r.closes = append(r.closes, func() error { z.Close(); return nil })
	}
	return r, nil
}

// Next returns the next request, io.EOF after the last one, or an *Error, which further calls return again.
func (r *Reader) Next() (Request, error) {
	if r.failed != nil {
		return Request{}, r.failed
	}
	q, err := r.next(r)
	if err != nil {
		r.failed = err
		return Request{}, err
	}
	r.count++
	return q, nil
}

// Close frees what the reader holds.
func (r *Reader) Close() error {
	var errs []error
	for _, c := range r.closes {
		errs = append(errs, c())
	}
	r.closes = nil
	r.failed = errors.New("trace: closed")
	return errors.Join(errs...)
}

func (r *Reader) bad(err error, format string, args ...any) error {
	return &Error{Name: r.name, Format: r.format, Offset: r.offset, Line: r.line, Problem: fmt.Sprintf(format, args...), Err: err}
}
