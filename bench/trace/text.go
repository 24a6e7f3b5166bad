package trace

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"math"
	"strconv"
)

// maxBlocks is the maximum number of blocks of one ARC request. A longer request is damage, and would loop for
// hours.
const maxBlocks = 1 << 20

// maxKey is the longest key of a line, in bytes; a longer one is invalid.
const maxKey = 1 << 10

// text reads a line without its line ending and skips empty lines. The offset stays at the start of the line until
// advance.
func (r *Reader) text() (line []byte, advance int64, err error) {
	for {
		line, err = r.in.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) || len(line) > maxLine {
			r.line++
			return nil, 0, r.bad(nil, "a line of more than %d bytes", maxLine)
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, 0, r.bad(err, "the file is damaged")
		}
		if len(line) == 0 {
			if r.count == 0 {
				return nil, 0, r.bad(nil, "the trace is empty")
			}
			return nil, 0, io.EOF
		}
		r.line++
		n := int64(len(line))
		line = bytes.TrimRight(line, "\r\n")
		if len(bytes.TrimSpace(line)) > 0 {
			if i := bytes.IndexFunc(line, control); i >= 0 {
				return nil, 0, r.bad(nil, "byte %d of the line is %#x, which no text has", i, line[i])
			}
			return line, n, nil
		}
		r.offset += n
	}
}

// control reports whether c occurs only in binary files.
func control(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }

func (r *Reader) keyLine() (Request, error) {
	line, n, err := r.text()
	if err != nil {
		return Request{}, err
	}
	if len(line) > maxKey {
		return Request{}, r.bad(nil, "a key of %d bytes; %d are the most", len(line), maxKey)
	}
	r.offset += n
	r.buf = append(r.buf[:0], line...)
	return Request{Key: r.buf}, nil
}

func (r *Reader) lirs() (Request, error) {
	for {
		line, n, err := r.text()
		if err != nil {
			return Request{}, err
		}
		line = bytes.TrimSpace(line)
		if len(bytes.Trim(line, "*")) == 0 {
			r.offset += n
			continue
		}
		key, err := strconv.ParseUint(string(line), 10, 64)
		if err != nil {
			return Request{}, r.bad(nil, "%.40q is no block number", line)
		}
		r.offset += n
		return Request{Key: r.number(key)}, nil
	}
}

func (r *Reader) arc() (Request, error) {
	if r.blocks == 0 {
		line, n, err := r.text()
		if err != nil {
			return Request{}, err
		}
		fields := bytes.Fields(line)
		if len(fields) != 4 {
			return Request{}, r.bad(nil, "%d numbers in a line, not 4", len(fields))
		}
		var v [4]uint64
		for i, f := range fields {
			if v[i], err = strconv.ParseUint(string(f), 10, 64); err != nil {
				return Request{}, r.bad(nil, "%.40q is no number", f)
			}
		}
		if v[1] < 1 || v[1] > maxBlocks || v[0] > math.MaxUint64-v[1] {
			return Request{}, r.bad(nil, "a request for %d blocks from %d on", v[1], v[0])
		}
		r.block, r.blocks = v[0], v[1]
		r.offset += n
	}
	key := r.block
	r.block++
	r.blocks--
	return Request{Key: r.number(key), Size: 512}, nil // blocks of 512 bytes, according to the traces' authors
}

// twitterOp returns the operation of Twitter's traces with the given name.
func twitterOp(name []byte) (Op, bool) {
	switch string(name) {
	case "get", "gets":
		return Read, true
	case "set", "add", "replace", "cas", "append", "prepend", "incr", "decr":
		return Write, true
	case "delete":
		return Delete, true
	}
	return 0, false
}

func (r *Reader) twitter() (Request, error) {
	line, n, err := r.text()
	if err != nil {
		return Request{}, err
	}
	// Keys are anonymised but may contain commas, so the fields after the key are counted from the end.
	fields := bytes.Split(line, []byte{','})
	if len(fields) < 7 {
		return Request{}, r.bad(nil, "%d fields in a line, not 7", len(fields))
	}
	seconds, err := strconv.ParseUint(string(fields[0]), 10, 62)
	if err != nil {
		return Request{}, r.bad(nil, "%.40q is no time in seconds", fields[0])
	}
	tail := fields[len(fields)-5:]
	size, err := strconv.ParseUint(string(tail[1]), 10, 31)
	if err != nil {
		return Request{}, r.bad(nil, "%.40q is no size of a value", tail[1])
	}
	op, ok := twitterOp(tail[3])
	if !ok {
		return Request{}, r.bad(nil, "%.40q is no operation", tail[3])
	}
	at, err := r.at(int64(seconds))
	if err != nil {
		return Request{}, err
	}
	key := line[len(fields[0])+1:]
	for _, f := range tail {
		key = key[:len(key)-len(f)-1]
	}
	if len(key) == 0 || len(key) > maxKey {
		return Request{}, r.bad(nil, "a key of %d bytes", len(key))
	}
	r.offset += n
	r.buf = append(r.buf[:0], key...)
	return Request{Key: r.buf, Size: int(size), At: at, Op: op}, nil
}
