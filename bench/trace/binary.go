package trace

import (
	"encoding/binary"
	"errors"
	"io"
	"strconv"
	"time"
)

// record reads n bytes, all of them or none.
func (r *Reader) record(n int) ([]byte, error) {
	if cap(r.buf) < n {
		r.buf = make([]byte, max(n, 64))
	}
	b := r.buf[:n]
	got, err := io.ReadFull(r.in, b)
	switch {
	case err == nil:
		return b, nil
	case errors.Is(err, io.EOF) && got == 0 && r.offset == 0:
		return nil, r.bad(nil, "the trace is empty")
	case err == io.EOF:
		return nil, io.EOF
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, r.bad(nil, "the trace ends within a request, %d bytes into its %d", got, n)
	}
	return nil, r.bad(err, "the file is damaged")
}

// number returns the name of a numeric key. It must not be called while the buffer is in use.
func (r *Reader) number(n uint64) []byte {
	r.buf = strconv.AppendUint(r.buf[:0], n, 10)
	return r.buf
}

// at returns the time since the first request, in whole seconds of the trace.
func (r *Reader) at(seconds int64) (time.Duration, error) {
	if r.count == 0 {
		r.first, r.last = seconds, seconds
	}
	// Recorders merge the streams of several threads, so time may legitimately go back slightly.
	if seconds < r.last-60 {
		return 0, r.bad(nil, "time goes back, from second %d to %d", r.last, seconds)
	}
	if seconds-r.last > 10*365*86400 {
		return 0, r.bad(nil, "time leaps, from second %d to %d", r.last, seconds)
	}
	r.last = max(r.last, seconds)
	return time.Duration(max(0, seconds-r.first)) * time.Second, nil
}

func (r *Reader) oracleGeneral() (Request, error) {
	b, err := r.record(24)
	if err != nil {
		return Request{}, err
	}
	seconds, key := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint64(b[4:])
	size, next := binary.LittleEndian.Uint32(b[12:]), int64(binary.LittleEndian.Uint64(b[16:]))
	at, err := r.at(int64(seconds))
	if err != nil {
		return Request{}, err
	}
	if size > maxValueSize {
		return Request{}, r.bad(nil, "a value of %d bytes", size)
	}
	// The next access is the number of a request and never precedes this one; -1 and the largest i64 mean "never".
	if next != -1 && next < r.count {
		return Request{}, r.bad(nil, "request %d is said to come again at request %d", r.count, next)
	}
	r.offset += 24
	return Request{Key: r.number(key), Size: int(size), At: at}, nil
}

func (r *Reader) cache2k() (Request, error) {
	b, err := r.record(4)
	if err != nil {
		return Request{}, err
	}
	r.offset += 4
	return Request{Key: r.number(uint64(binary.BigEndian.Uint32(b)))}, nil
}
