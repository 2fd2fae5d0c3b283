package rpc

import (
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
)

func directoriesToWire(dirs []freshet.CacheDirectory) []*freshetv1.CacheDirectory {
	var out []*freshetv1.CacheDirectory
	for _, d := range dirs {
		out = append(out, &freshetv1.CacheDirectory{
			Tier: d.Tier, Path: d.Path, State: d.State, Reason: d.Reason, UsedBytes: d.Used, CapacityBytes: d.Capacity,
		})
	}
	return out
}

func directoriesOfWire(dirs []*freshetv1.CacheDirectory) []freshet.CacheDirectory {
	var out []freshet.CacheDirectory
	for _, d := range dirs {
		out = append(out, freshet.CacheDirectory{
			Tier: d.GetTier(), Path: d.GetPath(), State: d.GetState(), Reason: d.GetReason(), Used: d.GetUsedBytes(), Capacity: d.GetCapacityBytes(),
		})
	}
	return out
}

func heatToWire(hot []freshet.BlockHeat) []*freshetv1.BlockHeat {
	var out []*freshetv1.BlockHeat
	for _, h := range hot {
		out = append(out, &freshetv1.BlockHeat{FileId: uint64(h.ID.File), Index: h.ID.Index, Reads: h.Reads})
	}
	return out
}

func heatOfWire(hot []*freshetv1.BlockHeat) []freshet.BlockHeat {
	var out []freshet.BlockHeat
	for _, h := range hot {
		out = append(out, freshet.BlockHeat{ID: freshet.BlockID{File: freshet.FileID(h.GetFileId()), Index: h.GetIndex()}, Reads: h.GetReads()})
	}
	return out
}

func drainToWire(d freshet.NodeDrain) *freshetv1.NodeDrain {
	out := &freshetv1.NodeDrain{
		Id: string(d.ID), Name: d.Name, State: d.State(), Live: d.Live, Blocks: d.Blocks, UsedBytes: d.Used,
		LeftBlocks: d.LeftBlocks, LeftBytes: d.LeftBytes, Uploads: d.Uploads, WaitsFor: d.WaitsFor,
	}
	if !d.Since.IsZero() {
		out.Since = timestamppb.New(d.Since)
	}
	return out
}
