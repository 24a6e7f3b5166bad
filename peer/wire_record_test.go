package peer

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/peer/internal/roster"
	"github.com/weircache/weir/peer/internal/wire"
)

// exchange sends bytes and reads the frame that comes back, including its length.
func exchange(t *testing.T, conn net.Conn, b []byte) []byte {
	t.Helper()
	if _, err := conn.Write(b); err != nil {
		t.Fatal(err)
	}
	frame := make([]byte, codec.FrameHeader)
	if _, err := io.ReadFull(conn, frame); err != nil {
		t.Fatal(err)
	}
	frame = append(frame, make([]byte, binary.BigEndian.Uint32(frame))...)
	if _, err := io.ReadFull(conn, frame[codec.FrameHeader:]); err != nil {
		t.Fatal(err)
	}
	return frame
}

// asker returns the identity of the calling side of a record.
func asker(n *Node) roster.Identity {
	return roster.Identity{Name: "asker", Cluster: "recorded", Incarnation: 99, Protocol: wire.ProtocolVersion, RingVersion: n.id.RingVersion, Placement: n.id.Placement}
}

// TestRecordWire records this version if it is told to: go test ./peer -run TestRecordWire -record v0.2.0
func TestRecordWire(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rehearsal.json")
	if *recordAs != "" {
		path = filepath.Join("testdata/wire", *recordAs+".json")
	}
	bubble(t, func(t *testing.T) {
		r := newRig()
		n := recordedNode(t, r)
		id := asker(n)
		h := n.data.Hello()
		h.Name, h.Incarnation = id.Name, id.Incarnation
		schema := productSchema(t, n)
		h.Namespaces = []wire.Namespace{{Name: "product", Schema: schema}}
		rec := wireRecord{Protocol: wire.ProtocolVersion, Meta: id.Append(nil), Hello: h.Append(nil), Asked: questions(schema), Answers: wireAnswers(), Requests: wireRequests()}
		conn := r.dial(t, 2, n)
		rec.Welcome = exchange(t, conn, append([]byte(wire.Magic), rec.Hello...))
		for i := range rec.Asked {
			q := &rec.Asked[i]
			q.Answer.Frame = exchange(t, conn, q.Request.Frame)
			q.Request.Means, q.Answer.Means = means(t, q.Request.Frame), means(t, q.Answer.Frame)
		}
		for _, list := range [][]wireFrame{rec.Answers, rec.Requests} {
			for i := range list {
				list[i].Means = means(t, list[i].Frame)
			}
		}
		text, err := json.MarshalIndent(rec, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) // an existing record is kept
		if err != nil {
			t.Fatal(err)
		}
		if _, err := file.Write(append(text, '\n')); err != nil {
			t.Error(err)
		}
		if err := file.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestEarlierVersions checks that what earlier versions sent is understood and answered as it was then. A version with
// another protocol is rejected with a reason.
func TestEarlierVersions(t *testing.T) {
	files, err := filepath.Glob("testdata/wire/v*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no records: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".json"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var rec wireRecord
			if err := json.Unmarshal(text, &rec); err != nil {
				t.Fatal(err)
			}
			bubble(t, func(t *testing.T) {
				r := newRig()
				n := recordedNode(t, r)
				if rec.Protocol == wire.ProtocolVersion {
					rec.understood(t, n)
					rec.replay(t, r, n)
					return
				}
				kind, _, why, err := codec.FrameKind(exchange(t, r.dial(t, 2, n), append([]byte(wire.Magic), rec.Hello...))[codec.FrameHeader:])
				if want := fmt.Sprintf("protocol version %d here, %d there", wire.ProtocolVersion, rec.Protocol); err != nil || kind != codec.KindGoodbye || !strings.Contains(string(why), want) {
					t.Errorf("kind %d, %q, %v", kind, why, err)
				}
			})
		})
	}
}

// understood checks that the recorded bytes still have the same meaning, and that the same bytes are still produced.
func (rec *wireRecord) understood(t *testing.T, n *Node) {
	t.Helper()
	if id, err := roster.DecodeIdentity(rec.Meta); err != nil || id != asker(n) || !bytes.Equal(id.Append(nil), rec.Meta) {
		t.Errorf("meta: %+v, %v", id, err)
	}
	for _, b := range [][]byte{rec.Hello, rec.Welcome} {
		_, _, body, _ := codec.FrameKind(b[codec.FrameHeader:])
		if h, err := wire.DecodeHello(body); err != nil || !bytes.Equal(h.Append(nil), b) {
			t.Errorf("hello: %+v, %v", h, err)
		}
	}
	frames := append(append([]wireFrame{}, rec.Answers...), rec.Requests...)
	for _, q := range rec.Asked {
		frames = append(frames, q.Request, q.Answer)
	}
	for _, f := range frames {
		var then bytes.Buffer
		if err := json.Compact(&then, f.Means); err != nil {
			t.Fatal(err)
		}
		if now := means(t, f.Frame); then.String() != string(now) {
			t.Errorf("%x\nmeant %s\nmeans %s", f.Frame, &then, now)
		}
	}
	for i, f := range wireRequests() {
		if i >= len(rec.Requests) || !bytes.Equal(f.Frame, rec.Requests[i].Frame) {
			t.Errorf("request %d is made otherwise now: %x", i, f.Frame)
		}
	}
	for _, f := range rec.Answers {
		var a codec.Response
		_, id, body, _ := codec.FrameKind(f.Frame[codec.FrameHeader:])
		if err := codec.DecodeResponse(&a, id, body); err != nil || !bytes.Equal(codec.AppendResponse(nil, &a), f.Frame) {
			t.Errorf("status %d is made otherwise now: %v", a.Status, err)
		}
	}
}

// replay repeats the recorded conversation with a node, which must answer as recorded.
func (rec *wireRecord) replay(t *testing.T, r *rig, n *Node) {
	t.Helper()
	conn := r.dial(t, 3, n)
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	if b := exchange(t, conn, append([]byte(wire.Magic), rec.Hello...)); codec.Kind(b[codec.FrameHeader]) != codec.KindHello {
		t.Fatalf("the hello was answered with %q", b)
	}
	for _, q := range rec.Asked {
		got := exchange(t, conn, q.Request.Frame)
		then, versions := gist(t, q.Answer.Frame)
		now, newer := gist(t, got)
		same := then == now && len(versions) == len(newer)
		for i := 0; same && i < len(versions); i++ {
			same = versions[i] == newer[i] || versions[i] == 0 // v0.1.0 gave values without their versions
		}
		if !same {
			t.Errorf("%s: was answered with %s, versions %d, now with %s, versions %d", q.What, then, versions, now, newer)
		}
	}
}

// gist returns the part of an answer that is the same each time (status, owner, text, value) and the versions in it.
func gist(t *testing.T, frame []byte) (s string, versions []uint64) {
	t.Helper()
	_, id, body, _ := codec.FrameKind(frame[codec.FrameHeader:])
	var a codec.Response
	if err := codec.DecodeResponse(&a, id, body); err != nil {
		t.Fatal(err)
	}
	s, versions = fmt.Sprintf("[%d: status %d flags %d owner %q text %q", id, a.Status, a.Flags, a.Owner, a.Text), []uint64{a.Version}
	switch rest := a.Value; a.Status {
	case codec.StatusMany:
		for len(rest) > 0 {
			var part codec.Response
			var err error
			if rest, err = codec.NextAnswer(&part, rest); err != nil {
				t.Fatal(err)
			}
			s, versions = s+fmt.Sprintf(" part %d %q", part.Status, part.Value), append(versions, part.Version)
		}
	case codec.StatusSynced: // positions, which differ each time
	default:
		s += fmt.Sprintf(" value %q", a.Value)
	}
	return s + "]", versions
}
