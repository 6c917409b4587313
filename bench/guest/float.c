/* Floating point: scalar double, SSE and AVX matrices, x87. */
#include <immintrin.h>

#include "workload.h"

static double root(double x)
{
    return _mm_cvtsd_f64(_mm_sqrt_sd(_mm_setzero_pd(), _mm_set_sd(x)));
}

static void nbody(unsigned long n)
{
    enum { BODIES = 5 };
    static struct body {
        double x[3], v[3], mass;
    } b[BODIES];
    for (unsigned i = 0; i < BODIES; i++)
        b[i] = (struct body){{i + 1.0, i * 0.7, i * 0.3}, {0.1 * i, 0.2, 0.01 * i}, 1.0 / (i + 1)};
    while (n--) {
        for (unsigned i = 0; i < BODIES; i++) {
            for (unsigned j = i + 1; j < BODIES; j++) {
                double d[3], square = 0.01;
                for (unsigned k = 0; k < 3; k++) {
                    d[k] = b[i].x[k] - b[j].x[k];
                    square += d[k] * d[k];
                }
                double force = 0.001 / (square * root(square));
                for (unsigned k = 0; k < 3; k++) {
                    b[i].v[k] -= d[k] * b[j].mass * force;
                    b[j].v[k] += d[k] * b[i].mass * force;
                }
            }
        }
        for (unsigned i = 0; i < BODIES; i++)
            for (unsigned k = 0; k < 3; k++)
                b[i].x[k] += 0.001 * b[i].v[k];
    }
    sink += (uint64_t)(b[0].x[0] * 1000);
}

enum { SIDE = 64 };
static float left[SIDE][SIDE] __attribute__((aligned(32))),
    right[SIDE][SIDE] __attribute__((aligned(32))),
    product[SIDE][SIDE] __attribute__((aligned(32)));

static void fill(void)
{
    for (unsigned i = 0; i < SIDE; i++)
        for (unsigned k = 0; k < SIDE; k++)
            left[i][k] = (float)(i + k), right[i][k] = (float)(i * 2) - (float)k;
}

static void matrix_sse(unsigned long n)
{
    fill();
    while (n--) {
        for (unsigned i = 0; i < SIDE; i++) {
            for (unsigned j = 0; j < SIDE; j += 4) {
                __m128 sum = _mm_setzero_ps();
                for (unsigned k = 0; k < SIDE; k++)
                    sum = _mm_add_ps(
                        sum, _mm_mul_ps(_mm_set1_ps(left[i][k]), _mm_load_ps(&right[k][j])));
                _mm_store_ps(&product[i][j], sum);
            }
        }
    }
    sink += (uint64_t)product[1][1];
}

static __attribute__((target("avx2,fma"))) void matrix_avx(unsigned long n)
{
    fill();
    while (n--) {
        for (unsigned i = 0; i < SIDE; i++) {
            for (unsigned j = 0; j < SIDE; j += 8) {
                __m256 sum = _mm256_setzero_ps();
                for (unsigned k = 0; k < SIDE; k++)
                    sum = _mm256_fmadd_ps(_mm256_set1_ps(left[i][k]), _mm256_load_ps(&right[k][j]),
                                          sum);
                _mm256_store_ps(&product[i][j], sum);
            }
        }
    }
    sink += (uint64_t)product[1][1];
}

static void x87(unsigned long n)
{
    static long double a[256];
    for (unsigned i = 0; i < 256; i++)
        a[i] = 1.0L + i / 256.0L;
    while (n--) {
        long double sum = 0, scale = 0.999L;
        for (unsigned i = 0; i < 256; i++) {
            sum = sum * scale + a[i] * a[255 - i];
            a[i] = a[i] * 0.5L + 0.5L;
        }
        sink += (uint64_t)sum;
    }
}

const struct workload float_workloads[] = {{"n-body", nbody},
                                           {"matrix-sse", matrix_sse},
                                           {"matrix-avx", matrix_avx},
                                           {"x87", x87},
                                           {NULL, NULL}};
