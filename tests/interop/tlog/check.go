// Command check verifies a modelward log with golang.org/x/mod/sumdb/{note,tlog}, which share no
// code with it: the checkpoint's signature, every tile, every leaf's inclusion, and consistency
// from every smaller tree.
//
//	GO111MODULE=off GOPATH=/usr/share/gocode go run check.go LOG VKEY
//
// LOG is the folder with `checkpoint` and `tile`. Prints one JSON object, or says what is wrong
// and exits 1.
package main

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const height = 8

// disk reads tiles by their tlog-tiles paths, which leave out the height that Go's own have.
type disk struct{ dir string }

func (d disk) Height() int { return height }

func (d disk) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var found [][]byte
	for _, tile := range tiles {
		data, err := os.ReadFile(filepath.Join(d.dir, path(tile)))
		if err != nil {
			return nil, err
		}
		found = append(found, data)
	}
	return found, nil
}

func (d disk) SaveTiles([]tlog.Tile, [][]byte) {}

func path(tile tlog.Tile) string {
	return strings.Replace(tile.Path(), fmt.Sprintf("tile/%d/", height), "tile/", 1)
}

func main() {
	if len(os.Args) != 3 {
		fail("usage: check LOG VKEY")
	}
	dir, vkey := os.Args[1], os.Args[2]
	tree := checkpoint(dir, vkey)
	reader := tlog.TileHashReader(tree, disk{dir})

	leaves := entries(dir, tree.N)
	var all []tlog.Hash
	read := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		var found []tlog.Hash
		for _, index := range indexes {
			found = append(found, all[index])
		}
		return found, nil
	})
	roots := make([]tlog.Hash, tree.N+1)
	for number, leaf := range leaves {
		// Go's own tree, grown from the entries: its hashes are what the tiles must hold.
		hashes, err := tlog.StoredHashes(int64(number), leaf, read)
		must(err)
		all = append(all, hashes...)
		roots[number+1], err = tlog.TreeHash(int64(number)+1, read)
		must(err)
	}
	if roots[tree.N] != tree.Hash {
		fail("the entries do not make the tree of the checkpoint")
	}

	checked := 0
	for number, leaf := range leaves {
		// From the tiles, authenticated against the checkpoint by TileHashReader.
		proof, err := tlog.ProveRecord(tree.N, int64(number), reader)
		must(err)
		must(tlog.CheckRecord(proof, tree.N, tree.Hash, int64(number), tlog.RecordHash(leaf)))
		if tlog.CheckRecord(proof, tree.N, tree.Hash, int64(number), tlog.RecordHash([]byte("x"))) == nil {
			fail("another leaf passes")
		}
		checked++
	}
	consistent := 0
	for size := int64(1); size <= tree.N; size++ {
		proof, err := tlog.ProveTree(tree.N, size, reader)
		must(err)
		must(tlog.CheckTree(proof, tree.N, tree.Hash, size, roots[size]))
		consistent++
	}
	proofs := inclusion(dir, tree, leaves)
	must(json.NewEncoder(os.Stdout).Encode(map[string]any{
		"size": tree.N, "included": checked, "consistent": consistent, "ours": proofs,
	}))
}

// checkpoint opens the note; only the log's own signature is known to Go, cosignatures are not.
func checkpoint(dir, vkey string) tlog.Tree {
	data, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	must(err)
	verifier, err := note.NewVerifier(vkey)
	must(err)
	opened, err := note.Open(data, note.VerifierList(verifier))
	must(err)
	lines := strings.Split(opened.Text, "\n")
	if len(lines) < 3 || lines[0] != verifier.Name() {
		fail("not a checkpoint of " + verifier.Name())
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	must(err)
	root, err := base64.StdEncoding.DecodeString(lines[2])
	must(err)
	var hash tlog.Hash
	copy(hash[:], root)
	return tlog.Tree{N: size, Hash: hash}
}

func entries(dir string, size int64) [][]byte {
	var found [][]byte
	for begin := int64(0); begin < size; begin += 1 << height {
		width := size - begin
		if width > 1<<height {
			width = 1 << height
		}
		tile := tlog.Tile{H: height, L: -1, N: begin >> height, W: int(width)}
		name := strings.Replace(path(tile), "tile/data/", "tile/entries/", 1)
		data, err := os.ReadFile(filepath.Join(dir, name))
		must(err)
		for len(data) > 0 {
			if len(data) < 2 || len(data) < 2+int(binary.BigEndian.Uint16(data)) {
				fail(name + " is cut off")
			}
			length := int(binary.BigEndian.Uint16(data))
			found = append(found, data[2:2+length])
			data = data[2+length:]
		}
	}
	if int64(len(found)) != size {
		fail("not as many entries as leaves")
	}
	return found
}

// inclusion checks the proofs that we made, if there is a file of them: one a line, the index and
// the hashes.
func inclusion(dir string, tree tlog.Tree, leaves [][]byte) int {
	data, err := os.ReadFile(filepath.Join(dir, "proofs.txt"))
	if os.IsNotExist(err) {
		return 0
	}
	must(err)
	count := 0
	for _, line := range strings.Split(strings.TrimSpace(string(data)), "\n") {
		words := strings.Fields(line)
		index, err := strconv.ParseInt(words[0], 10, 64)
		must(err)
		var proof tlog.RecordProof
		for _, word := range words[1:] {
			hash, err := tlog.ParseHash(word)
			must(err)
			proof = append(proof, hash)
		}
		must(tlog.CheckRecord(proof, tree.N, tree.Hash, index, tlog.RecordHash(leaves[index])))
		count++
	}
	return count
}

func must(err error) {
	if err != nil {
		fail(err.Error())
	}
}

func fail(problem string) {
	fmt.Fprintln(os.Stderr, problem)
	os.Exit(1)
}
