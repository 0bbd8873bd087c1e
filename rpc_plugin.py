"""The commands of LSVD for the JSON-RPC client of SPDK.

    PYTHONPATH=DIR spdk-rpc --plugin rpc_plugin bdev_lsvd_create POOL IMAGE [-c CONFIG]
    PYTHONPATH=DIR spdk-rpc --plugin rpc_plugin bdev_lsvd_delete IMAGE
    PYTHONPATH=DIR spdk-rpc --plugin rpc_plugin bdev_lsvd_resize IMAGE MIB

DIR is the directory of this file. `--plugin` stands before the command.

Everything that is not `args.client.call` has moved between versions of the client (from v24.01 to
26.9), so nothing else of it is used here.
"""

import json


def _print(result):
    # A dry run and a batch have no result yet.
    if result is not None:
        print(json.dumps(result, indent=2).strip('"'))


def bdev_lsvd_create(args):
    _print(args.client.call('bdev_lsvd_create', {
        'image_name': args.image_name,
        'pool_name': args.pool_name,
        'config': args.cfg,
    }))


def bdev_lsvd_delete(args):
    _print(args.client.call('bdev_lsvd_delete', {'image_name': args.image_name}))


def bdev_lsvd_resize(args):
    _print(args.client.call('bdev_lsvd_resize', {
        'name': args.name,
        'new_size': args.new_size,
    }))


def spdk_rpc_plugin_initialize(subparsers):
    p = subparsers.add_parser('bdev_lsvd_create', help='Open an image as a bdev of the same name')
    p.add_argument('pool_name', help='Pool that holds the image')
    p.add_argument('image_name', help='Name of the image')
    p.add_argument('-c', '--cfg', default='',
                   help='Settings of the image: a JSON object, or the path of a file with one')
    p.set_defaults(func=bdev_lsvd_create)

    p = subparsers.add_parser('bdev_lsvd_delete', help='Close an image')
    p.add_argument('image_name', help='Name of the image')
    p.set_defaults(func=bdev_lsvd_delete)

    p = subparsers.add_parser('bdev_lsvd_resize', help='Grow an open image; its hosts are told')
    p.add_argument('name', help='Name of the image')
    p.add_argument('new_size', type=int, help='Its new size in MiB')
    p.set_defaults(func=bdev_lsvd_resize)
