package peer

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"strings"
	"testing"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/tier"
)

// The records in testdata/wire hold what a version sent and the answers it got. See "Rolling upgrades" in OPERATING.md.
var recordAs = flag.String("record", "", "write what crosses the wire to testdata/wire as that of this version, such as v0.2.0; a record that is there is never changed")

// A wireRecord is a conversation with a node, recorded with one version.
type wireRecord struct {
	Protocol int
	Meta     hexBytes       // a member's gossip meta
	Hello    hexBytes       // the caller's first frame
	Welcome  hexBytes       // the node's hello
	Asked    []wireExchange // in order
	Answers  []wireFrame    // one of each status, whether or not it occurs in the conversation
	Requests []wireFrame    // one of each kind with all fields set
}

// A wireExchange is a request and what the node answered.
type wireExchange struct {
	What            string
	Request, Answer wireFrame
}

// A wireFrame is a frame and its decoded meaning.
type wireFrame struct {
	Frame hexBytes
	Means json.RawMessage
}

type hexBytes []byte

func (b hexBytes) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(b)), nil }
func (b *hexBytes) UnmarshalText(text []byte) (err error) {
	*b, err = hex.DecodeString(string(text))
	return err
}

// recordedNode starts the node that is called. It has one cache and is alone, so it owns every key.
func recordedNode(t *testing.T, r *rig) *Node {
	t.Helper()
	n := r.add(t, 1, Config{ClusterName: "recorded"})
	cache, err := tier.New(tier.Config[string]{
		Cluster: n, Namespace: "product", Logger: quick("").Logger,
		Loader: func(_ context.Context, f *tier.Fill[string]) (string, error) {
			switch {
			case strings.HasPrefix(f.Key, "none"):
				return "", tier.ErrNotFound
			case strings.HasPrefix(f.Key, "broken"):
				return "", errors.New("out of order")
			}
			f.SetVersion(3)
			f.Tag("brand:7")
			return "value of " + f.Key, nil
		},
		Freshness: tier.Freshness{TTL: time.Minute, StaleWhileRevalidate: time.Hour, NegativeTTL: 5 * time.Second, NearTTL: 2 * time.Second},
		Origin:    tier.Origin{Concurrency: 4},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cache.Close(context.Background()) })
	return n
}

// productSchema returns the schema of a recorded node's cache.
func productSchema(t *testing.T, n *Node) uint64 {
	t.Helper()
	for _, ns := range n.data.Hello().Namespaces {
		if ns.Name == "product" {
			return ns.Schema
		}
	}
	t.Fatal("the node has no cache")
	return 0
}

// questions returns requests of every kind, in the order in which they are sent.
func questions(schema uint64) []wireExchange {
	mark := func(seq uint64) codec.Mark { return codec.Mark{Incarnation: 99, Seq: seq} }
	news := func(seq uint64, scope codec.Scope, names ...string) *codec.News {
		i := codec.Invalidation{Mark: mark(seq), Scope: scope}
		for _, name := range names {
			i.Names = append(i.Names, []byte(name))
		}
		return &codec.News{Invalidations: []codec.Invalidation{i}}
	}
	wanted := func(keys ...string) (list []codec.Wanted) {
		for _, k := range keys {
			list = append(list, codec.Wanted{Key: []byte(k)})
		}
		return list
	}
	var list []wireExchange
	add := func(what string, r codec.Request) {
		if r.ID = uint64(len(list) + 1); r.Namespace == nil {
			r.Namespace, r.Schema = []byte("product"), schema
		}
		list = append(list, wireExchange{What: what, Request: wireFrame{Frame: codec.AppendRequest(nil, &r)}})
	}
	get := func(key string) codec.Request {
		return codec.Request{Kind: codec.KindGet, Timeout: time.Second, Key: []byte(key)}
	}
	add("get, cold", get("sku-1"))
	add("get, a hit", get("sku-1"))
	add("get, not found", get("none-1"))
	add("get, a failing loader", get("broken-1"))
	notCached := get("sku-9")
	notCached.Flags = codec.FlagNoFill
	add("get, not cached", notCached)
	traced := get("sku-1")
	traced.Flags, traced.MaxAge, traced.Have, traced.Trace = codec.FlagTrace|codec.FlagMaxAge|codec.FlagHave, time.Minute, 1, codec.Trace{1, 16: 2, 24: 1}
	add("get, with a trace, an age and a copy", traced)
	add("get, another namespace", codec.Request{Kind: codec.KindGet, Namespace: []byte("price"), Key: []byte("k")})
	add("get, another contract", codec.Request{Kind: codec.KindGet, Namespace: []byte("product"), Schema: schema + 1, Key: []byte("k")})
	add("get many, what is there", codec.Request{Kind: codec.KindGetMany, Mode: codec.ModeLook, Many: wanted("sku-1", "sku-2", "none-1")})
	add("get many, waiting", codec.Request{Kind: codec.KindGetMany, Timeout: time.Second, Mode: codec.ModeWait, Many: wanted("sku-2", "sku-3")})
	add("get many, warming", codec.Request{Kind: codec.KindGetMany, Timeout: time.Second, Mode: codec.ModeWarm, Many: wanted("sku-4")})
	add("put", codec.Request{Kind: codec.KindPut, Timeout: time.Second, Fence: mark(1), Version: 4, TTL: time.Minute, Key: []byte("sku-5"), Value: []byte("\xa9put there")})
	add("get, what was put", get("sku-5"))
	add("invalidate a key", codec.Request{Kind: codec.KindInvalidate, Timeout: time.Second, News: news(2, codec.ScopeKeys, "sku-1")})
	add("invalidate a tag", codec.Request{Kind: codec.KindInvalidate, Timeout: time.Second, News: news(3, codec.ScopeTags, "brand:7")})
	add("invalidate all", codec.Request{Kind: codec.KindInvalidate, Timeout: time.Second, News: news(4, codec.ScopeAll)})
	add("get, after the invalidations", get("sku-1"))
	add("sync", codec.Request{Kind: codec.KindSync, Timeout: time.Second, News: &codec.News{Positions: []codec.Position{{Incarnation: 99, Seq: 4, Idle: time.Second}}}})
	add("push", codec.Request{Kind: codec.KindPush, Timeout: time.Second, News: &codec.News{Positions: []codec.Position{{Incarnation: 99, Seq: 4}}},
		Pushed: []codec.Pushed{{Key: []byte("sku-6"), Value: []byte("\xa3new"), Heat: 2, Age: time.Second, Soft: time.Minute, Hard: time.Hour, Cost: time.Millisecond, Version: 3}}})
	add("relay", codec.Request{Kind: codec.KindInvalidate, Flags: codec.FlagRelay, Target: []byte("n9"), Timeout: time.Second, News: news(5, codec.ScopeKeys, "sku-1")})
	return list
}

// wireAnswers returns one answer of each status.
func wireAnswers() (list []wireFrame) {
	for status := codec.StatusValue; status <= codec.StatusUnsupported; status++ {
		r := codec.Response{
			ID: 7, Status: status, Incarnation: 5, View: 6, Age: time.Second, Soft: -time.Minute, Hard: time.Hour, Held: time.Millisecond,
			RetryAfter: time.Second, Version: 8, Etag: 9, Seq: 10, Owner: []byte("n2"), Text: []byte("why"), Members: [][]byte{[]byte("n3")},
		}
		switch status {
		case codec.StatusValue, codec.StatusNotFound, codec.StatusSame:
			r.Flags, r.Why, r.Tags = codec.FlagStale|codec.FlagFilled|codec.FlagTagged|codec.FlagSameView|codec.FlagPassing, 2, []uint32{3, 4}
		}
		if status == codec.StatusValue {
			r.Value = []byte("value")
		}
		list = append(list, wireFrame{Frame: codec.AppendResponse(nil, &r)})
	}
	return list
}

// wireRequests returns one request of each kind with all fields set.
func wireRequests() (list []wireFrame) {
	key, mark := []byte("key"), codec.Mark{Incarnation: 2, Seq: 3}
	news := func() *codec.News {
		return &codec.News{
			Positions: []codec.Position{{Incarnation: 1, Seq: 2, Idle: time.Second}},
			Bases:     []codec.Base{{Incarnation: 3, Seq: 4, Flush: true}},
			Invalidations: []codec.Invalidation{
				{Mark: mark, Scope: codec.ScopeKeys, Names: [][]byte{key}},
				{Mark: mark, Scope: codec.ScopeTags, Version: 5, Names: [][]byte{[]byte("tag")}},
				{Mark: mark, Scope: codec.ScopeAll},
			},
			Life: time.Hour, More: true,
		}
	}
	for _, r := range []codec.Request{
		{Kind: codec.KindGet, Flags: codec.FlagSuccessor | codec.FlagMaxAge | codec.FlagHave | codec.FlagTrace, MaxAge: time.Second, Have: 4,
			Trace: codec.Trace{1, 2}, Fence: mark, Chain: []uint64{5, 6}, Key: key},
		{Kind: codec.KindGetMany, Mode: codec.ModeWait, Chain: []uint64{5}, Many: []codec.Wanted{{Key: key, Fence: mark, Have: 7}, {Key: []byte("other")}}},
		{Kind: codec.KindPut, Fence: mark, Version: 4, TTL: time.Minute, Tags: []uint32{1}, Key: key, Value: []byte("value")},
		{Kind: codec.KindInvalidate, Flags: codec.FlagRelay, Target: []byte("n2"), News: news()},
		{Kind: codec.KindSync, News: news()},
		{Kind: codec.KindPush, News: news(), Token: 8, Pushed: []codec.Pushed{
			{Key: key, Value: []byte("value"), Heat: 3, Age: time.Second, Soft: -time.Second, Hard: time.Minute, Cost: time.Millisecond, Version: 9, Tags: []uint32{1}},
			{Key: key, NotFound: true},
		}},
	} {
		r.ID, r.Namespace, r.Schema, r.View, r.Timeout = 7, []byte("namespace"), 10, 11, 1500*time.Microsecond
		list = append(list, wireFrame{Frame: codec.AppendRequest(nil, &r)})
	}
	return list
}

// means decodes a frame and returns its content as JSON, without zero fields.
func means(t *testing.T, frame []byte) json.RawMessage {
	t.Helper()
	kind, id, body, err := codec.FrameKind(frame[codec.FrameHeader:])
	if err != nil {
		t.Fatal(err)
	}
	var said any
	if kind == codec.KindAnswer {
		r := new(codec.Response)
		err, said = codec.DecodeResponse(r, id, body), r
	} else {
		r := new(codec.Request)
		err, said = codec.DecodeRequest(r, kind, id, body), r
	}
	if err != nil {
		t.Fatalf("kind %d: %v", kind, err)
	}
	return withoutZero(t, said)
}

func withoutZero(t *testing.T, said any) json.RawMessage {
	t.Helper()
	text, err := json.Marshal(said)
	if err != nil {
		t.Fatal(err)
	}
	var tree any
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&tree); err != nil {
		t.Fatal(err)
	}
	tree, _ = prune(tree)
	if text, err = json.Marshal(tree); err != nil {
		t.Fatal(err)
	}
	return text
}

// prune removes zero fields from objects, so that a record does not depend on fields added after it.
func prune(v any) (pruned any, zero bool) {
	switch v := v.(type) {
	case map[string]any:
		for name, f := range v {
			if f, zero := prune(f); zero {
				delete(v, name)
			} else {
				v[name] = f
			}
		}
		return v, len(v) == 0
	case []any:
		zero = true
		for i := range v {
			var z bool
			v[i], z = prune(v[i])
			zero = zero && z
		}
		return v, zero
	case json.Number:
		return v, v == "0"
	}
	return v, v == nil || v == "" || v == false
}
