package namespace

import (
	"io"

	"github.com/freshet-io/freshet"
)

// DumpInfo is what a dump says of the state in it.
type DumpInfo struct {
	Format  int
	Version int // in force, see Version
	Cluster freshet.ClusterID
	Name    string
	Epoch   uint64
	Applied uint64
	Hash    [32]byte // as State.Hash would return it in that format
	Tables  []TableCount
}

// TableCount is how much a table has.
type TableCount struct {
	Name  string
	Rows  uint64
	Bytes uint64 // of keys and values
}

// Rows returns the number of rows of a table, by its name.
func (d *DumpInfo) Rows(table string) uint64 {
	for _, t := range d.Tables {
		if t.Name == table {
			return t.Rows
		}
	}
	return 0
}

// tableName names a table for people; one that a later version of a format may add
// is named by its byte.
func tableName(table byte) string {
	names := map[byte]string{
		tableMeta: "state", tableAttr: "attributes", tableMember: "members", tableDir: "directories", tableFile: "file versions",
		tableMissing: "missing marks", tableHead: "log heads", tableInode: "entries", tableMount: "mounts", tableIntent: "intents",
		tableOutcome: "outcomes", tablePolicy: "policies", tableEnded: "outcomes by index", tableRecord: "log records",
		tableSub: "subscriptions", tableTrash: "detached trees", tableCursor: "watch cursors", tableQuota: "quotas", tableTag: "quota tags", tableJob: "sync jobs", tableWarm: "warm jobs", tableUnpersisted: "unpersisted files", tableNode: "node roles", tableUncounted: "uncounted directories",
	}
	if name, ok := names[table]; ok {
		return name
	}
	return "table " + string(rune(table))
}

// InspectDump reads a dump to its end and returns what is in it, without a store.
// It is KindCorrupt if it is not whole and KindUnsupported if a newer version wrote
// it.
func InspectDump(r io.Reader) (DumpInfo, error) {
	const op = "inspect snapshot"
	var info DumpInfo
	known := ownFormats()
	begin := func(format int) error {
		info.Format = format
		return known.check(format)
	}
	sum := newRowHash()
	var row []byte
	err := readDump(r, begin, func(key, value []byte) error {
		row = appendRow(row[:0], key, value)
		sum.add(row)
		if n := len(info.Tables); n == 0 || info.Tables[n-1].Name != tableName(key[0]) {
			info.Tables = append(info.Tables, TableCount{Name: tableName(key[0])})
		}
		t := &info.Tables[len(info.Tables)-1]
		t.Rows++
		t.Bytes += uint64(len(key) + len(value))
		if len(key) != 1 || key[0] != tableMeta {
			return nil
		}
		var m meta
		if err := decode(value, &m); err != nil {
			return err
		}
		info.Cluster, info.Name, info.Epoch, info.Applied, info.Version = m.Cluster, m.Name, m.Epoch, m.Applied, m.version()
		return m.check()
	})
	if err != nil {
		return DumpInfo{}, freshet.Errorf(formatKind(err, freshet.KindCorrupt), op, "", "%w", err)
	}
	info.Hash = [32]byte(sum.h.Sum(nil))
	return info, nil
}
