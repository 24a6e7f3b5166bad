package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/weircache/weir/tier"
	_ "modernc.org/sqlite" // the pure Go driver "sqlite"
)

// missCost is the approximate cost of a load: four small reads, and a delay that stands for a database across a
// network.
const missCost = 40 * time.Millisecond

// Product is what the service serves, and what weir caches.
type Product struct {
	SKU     string
	Name    string
	Cents   int64
	Stock   int64
	Reviews int64
	Stars   float64
	Version int64 // raised by every write
}

// store is the origin: an SQLite database that all nodes open, with a journal next to it.
type store struct {
	db      *sql.DB
	journal *journal
}

func openStore(path string, j *journal) (*store, error) {
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(WAL)&_pragma=busy_timeout(5000)&_pragma=synchronous(OFF)")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(8)
	return &store{db: db, journal: j}, nil
}

func sku(i int) string { return fmt.Sprintf("sku-%06d", i) }

// createStore creates a database of n generated products. The contents are the same every time.
func createStore(ctx context.Context, path string, n int) error {
	s, err := openStore(path, nil)
	if err != nil {
		return err
	}
	defer s.db.Close()
	for _, q := range []string{
		`CREATE TABLE product (sku TEXT PRIMARY KEY, name TEXT NOT NULL) WITHOUT ROWID`,
		`CREATE TABLE price (sku TEXT PRIMARY KEY, cents INTEGER NOT NULL, version INTEGER NOT NULL) WITHOUT ROWID`,
		`CREATE TABLE stock (sku TEXT PRIMARY KEY, units INTEGER NOT NULL) WITHOUT ROWID`,
		`CREATE TABLE review (sku TEXT NOT NULL, n INTEGER NOT NULL, stars INTEGER NOT NULL, PRIMARY KEY (sku, n)) WITHOUT ROWID`,
		`CREATE TEMP TABLE seq AS WITH RECURSIVE s(i) AS (SELECT 0 UNION ALL SELECT i+1 FROM s WHERE i+1 < ` + fmt.Sprint(n) + `)
		 SELECT i, printf('sku-%06d', i) AS sku FROM s`,
		`INSERT INTO product SELECT sku, 'Product ' || i FROM seq`,
		`INSERT INTO price SELECT sku, 100 + (i * 7919) % 9900, 1 FROM seq`,
		`INSERT INTO stock SELECT sku, (i * 31) % 500 FROM seq`,
		`INSERT INTO review SELECT sku, k, 1 + (i * 13 + k * 7) % 5 FROM seq, (SELECT 0 AS k UNION SELECT 1 UNION SELECT 2) WHERE k <= i % 3`,
	} {
		if _, err := s.exec(ctx, q); err != nil {
			return fmt.Errorf("creating the database: %w", err)
		}
	}
	return nil
}

// exec runs a statement on the store's one connection, so that a temporary table persists.
func (s *store) exec(ctx context.Context, q string) (sql.Result, error) {
	s.db.SetMaxOpenConns(1)
	return s.db.ExecContext(ctx, q)
}

// step has the signature of weir's Fill.Step, which times one dependency.
type step func(name string) func(err ...error)

// load is the miss path: the reads of a miss and their cost.
func (s *store) load(ctx context.Context, kind byte, key string, timed step) (p Product, err error) {
	s.journal.begin(kind, key)
	defer s.journal.end(kind, key)
	began := time.Now()
	p.SKU = key
	for _, q := range []struct {
		table, query string
		into         []any
	}{
		{"product", `SELECT name FROM product WHERE sku = ?`, []any{&p.Name}},
		{"price", `SELECT cents, version FROM price WHERE sku = ?`, []any{&p.Cents, &p.Version}},
		{"stock", `SELECT units FROM stock WHERE sku = ?`, []any{&p.Stock}},
		{"reviews", `SELECT count(*), coalesce(avg(stars), 0) FROM review WHERE sku = ?`, []any{&p.Reviews, &p.Stars}},
	} {
		done := timed(q.table)
		err := s.db.QueryRowContext(ctx, q.query, key).Scan(q.into...)
		done()
		if errors.Is(err, sql.ErrNoRows) {
			return p, tier.ErrNotFound
		}
		if err != nil {
			return p, fmt.Errorf("%s: %w", q.table, err)
		}
	}
	defer timed("network")()
	t := time.NewTimer(missCost - time.Since(began))
	defer t.Stop()
	select {
	case <-t.C:
		return p, nil
	case <-ctx.Done():
		return p, ctx.Err()
	}
}

// setPrice writes a price and returns the new version.
func (s *store) setPrice(ctx context.Context, key string, cents int64) (version int64, err error) {
	err = s.db.QueryRowContext(ctx, `UPDATE price SET cents = ?, version = version + 1 WHERE sku = ? RETURNING version`, cents, key).Scan(&version)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, tier.ErrNotFound
	}
	return version, err
}

// The journal counts the origin's calls. It is a file that every node appends to, so the count outlives a killed node.
// A record is 16 bytes: 'b' or 'e' for begin and end, 'w' or 'n' for weir and naive, the node, and the key.
type journal struct {
	mu   sync.Mutex // guards buf
	file *os.File
	node byte
	buf  [journalRecord]byte
}

const journalRecord = 16

func openJournal(path string, node int) (*journal, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return nil, err
	}
	return &journal{file: f, node: byte('0' + node)}, nil
}

func (j *journal) begin(kind byte, key string) { j.write('b', kind, key) }
func (j *journal) end(kind byte, key string)   { j.write('e', kind, key) }

func (j *journal) write(what, kind byte, key string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i := range j.buf {
		j.buf[i] = ' '
	}
	j.buf[0], j.buf[1], j.buf[2], j.buf[journalRecord-1] = what, kind, j.node, '\n'
	copy(j.buf[4:journalRecord-1], key)
	if _, err := j.file.Write(j.buf[:]); err != nil {
		fmt.Fprintln(os.Stderr, "journal:", err)
	}
}
