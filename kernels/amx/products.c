/* Which products tiles do faster, within avx512. Activations and all other operations are those of avx512. */
#include "kernels/amx/matmul.h"
#include "kernels/avx512/rows.h"
#include "kernels/isa.h"
#include "kernels/unpack8.h"

void kernels_add_amx(kernel_table *k)
{
    for (uint32_t type = 0; type < Q_TYPE_COUNT; type++) {
        if (!unpack8_info(type)) continue;
        k->matmul_path[type] =
            k->matmul[type] == matmul_tile8_avx512 ? "avx512 and AMX via 8-bit unpack" : "avx512 and AMX";
        k->matmul[type] = matmul_amx;
    }
}
